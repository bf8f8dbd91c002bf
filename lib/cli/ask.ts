/** One question to a human on standard error, one line from standard input. */
export async function ask(question: string): Promise<string> {
  const { createInterface } = await import("node:readline/promises");
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const closed = new Promise<string>((resolve) => {
      reader.once("close", () => {
        resolve("");
      });
    });
    return await Promise.race([reader.question(question), closed]);
  } finally {
    reader.close();
  }
}

/** The same without showing what is typed. */
export async function askSecret(question: string): Promise<string> {
  const { Writable } = await import("node:stream");
  const { createInterface } = await import("node:readline/promises");
  // readline echoes to its output, which goes nowhere.
  const nowhere = new Writable({
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  const reader = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  process.stderr.write(question);
  try {
    const closed = new Promise<string>((resolve) => {
      reader.once("close", () => {
        resolve("");
      });
    });
    return await Promise.race([reader.question(""), closed]);
  } finally {
    reader.close();
    process.stderr.write("\n");
  }
}

/** Commands of sharedha in a guest, one after the other in one process of it. */
import { type Answer } from "./guest/commands.js";
import { type Vm } from "../lab/vm.js";

const PROGRAM = "/opt/sharedha/dist/test/e2e/guest/commands.js";

export class Commands {
  readonly #process: ReturnType<Vm["start"]>;
  #pending = "";
  #waiting: ((line: string) => void) | undefined;

  constructor(vm: Vm) {
    this.#process = vm.start(
      ["node", PROGRAM],
      (text) => {
        this.#pending += text;
        const end = this.#pending.indexOf("\n");
        if (end !== -1) {
          const line = this.#pending.slice(0, end);
          this.#pending = this.#pending.slice(end + 1);
          this.#waiting?.(line);
        }
      },
      { keepsInput: true },
    );
  }

  /** @throws Error when another one runs, when it takes too long, or when the process ends */
  async run(argv: readonly string[], timeoutMs = 90_000): Promise<Answer> {
    const what = `sharedha ${argv.join(" ")}`;
    if (this.#waiting !== undefined) {
      throw new Error(`${what}: another command runs`);
    }
    const answered = new Promise<string>((resolve) => {
      this.#waiting = resolve;
    });
    this.#process.write(`${JSON.stringify(argv)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(resolve, timeoutMs, "late");
    });
    const line = await Promise.race([
      answered.then((text) => ({ text })),
      this.#process.ended,
      late,
    ]);
    clearTimeout(timer);
    this.#waiting = undefined;
    if (typeof line === "string" || !("text" in line)) {
      this.end();
      throw new Error(`${what}: ${JSON.stringify(line)}\n${this.#process.stderr}`);
    }
    return JSON.parse(line.text) as Answer;
  }

  end(): void {
    this.#process.drop();
  }
}

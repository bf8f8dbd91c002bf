/** How a look in a process of its own speaks to doctor. */

/** Resolves when the message is on its way, so that what is found before a hang is not lost with it. */
export async function send(message: unknown): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    if (process.send === undefined) {
      reject(new Error("started without a channel: this is a part of `sharedha doctor`"));
      return;
    }
    process.send(message, undefined, undefined, (error) => {
      if (error === null) {
        resolve();
      } else {
        reject(error);
      }
    });
  });
}

/** Loaded by mocha before the tests. */

// mocha 12 lets an unhandled rejection pass with exit 0; with this hook it fails the run.
process.on("unhandledRejection", (reason) => {
  throw reason instanceof Error ? reason : new Error(`unhandled rejection: ${String(reason)}`);
});

/** How long after the last test the process may still be busy with what it closed. */
const DRAIN_MS = 10_000;

/** A server, socket or child that a test leaves open keeps the process alive for ever: that is a failure with a name. */
export const mochaHooks = {
  afterAll(): void {
    setTimeout(() => {
      process.stderr.write(
        `still open after all tests: ${process.getActiveResourcesInfo().join(", ")}\n`,
      );
      process.exit(1);
    }, DRAIN_MS).unref();
  },
};

/** Why tests do not run is told with their names: mocha prints neither a hook nor a reason. */
import { type Context } from "mocha";

/** In a hook or a test: skips it, and all tests that the hook is for, when there is a reason. */
export function skipIf(context: Context, why: string | undefined): void {
  const { test } = context;
  if (why === undefined || test === undefined) {
    return;
  }
  const reason = ` (skipped: ${why})`;
  if ("type" in test && test.type === "hook") {
    test.parent?.eachTest((each) => {
      each.title += reason;
    });
  } else {
    test.title += reason;
  }
  context.skip();
}

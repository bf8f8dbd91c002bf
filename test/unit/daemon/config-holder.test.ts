import assert from "node:assert/strict";

import { ConfigHolder, type StoredConfig } from "../../../lib/daemon/config-holder.js";
import { ShareHaError } from "../../../lib/errors.js";
import { PROFILES } from "../../../lib/lease/timings.js";

/** As of a cluster that was made with `--profile default` and `ttl_ms = 4000`. */
const IN_FORCE = { ...PROFILES.default, ttlMs: 4_000 };
const MADE_WITH = "[timers]\nttl_ms = 4000\n";

describe("the cluster's configuration on a node", () => {
  let written: string[];
  let holder: ConfigHolder;

  beforeEach(() => {
    written = [];
    const stored = (): StoredConfig => ({
      toml: written.at(-1) ?? MADE_WITH,
      stamp: `${written.length}.1`,
    });
    holder = new ConfigHolder(
      {
        read: () => Promise.resolve(stored()),
        write: (toml) => {
          written.push(toml);
          return Promise.resolve(stored());
        },
        undo: () => Promise.resolve(stored()),
      },
      IN_FORCE,
      () => undefined,
    );
  });

  async function apply(toml: string): Promise<void> {
    const { stamp } = await holder.read();
    await holder.apply({ toml, stamp });
  }

  it("takes a text that says the timers in force, all or some of them, or none", async () => {
    const texts = [
      `accept_guard = true\n${MADE_WITH}`,
      "[timers]\ninterval_ms = 500\ndeadline_ms = 1000\nttl_ms = 4000\nwatchdog_ms = 5000\n",
      "[timers]\nwatchdog_ms = 5000\n",
      "accept_guard = true\n",
    ];
    for (const text of texts) {
      await apply(text);
    }
    assert.deepEqual(written, texts);
    assert.equal(holder.current.acceptGuard, true);
  });

  it("refuses a text with another timer, says which one is in force, and writes nothing", async () => {
    for (const [text, key, ms] of [
      ["[timers]\nttl_ms = 3000\n", "ttl_ms", 4_000],
      ["[timers]\nttl_ms = 4000\nwatchdog_ms = 6000\n", "watchdog_ms", 5_000],
    ] as const) {
      await assert.rejects(apply(text), (error) => {
        assert(error instanceof ShareHaError);
        assert.equal(error.code, "ERR_TIMERS_FIXED");
        assert.match(error.message, new RegExp(`timers\\.${key}: .* ${ms} ms`));
        assert.match(error.hint, new RegExp(`${key} = ${ms}`));
        return true;
      });
    }
    assert.deepEqual(written, []);
  });
});

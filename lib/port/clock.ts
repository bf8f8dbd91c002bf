/** The only clock that decides anything: CLOCK_BOOTTIME in milliseconds (it goes on while the machine is suspended). */
export interface Clock {
  /** Milliseconds with a fraction; only differences mean anything. */
  bootMs(): number;
}

/** Injected randomness, integers only. */
export interface Random {
  /** A whole number, 0 <= n < limit. */
  below(limit: number): number;
  /** 64 random bits (nonces). */
  u64(): bigint;
}

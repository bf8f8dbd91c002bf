/**
 * Taking a resource lease: look who has it, arm the watchdog, run the ballot, look after shared holders.
 *
 * Exclusive: the ballot's winner is the holder. Shared: win the ballot with SHORT_HOLD, write SHARED into the own block
 * and free the leader, all before anybody else can win (facts section 2.7).
 */
import { type Evidence } from "../fence/evidence.js";
import { type Random } from "../port/clock.js";
import {
  type BallotOutcome,
  type BallotTerms,
  commitDecided,
  type HeldLease,
  releaseLeader,
  runBallot,
  type Self,
  writeBlockOp,
} from "./ballot.js";
import {
  isDecidedFor,
  isLeaseFree,
  type LeaseAddress,
  type LeaseView,
  nextLver,
  readLeaseOp,
  sharedHolders,
  viewLease,
} from "./lease-view.js";
import {
  arm,
  describeFailures,
  type DiskProcedure,
  doneOn,
  hasRight,
  io,
  isMajority,
  type LunSet,
  sleep,
} from "./procedure.js";

/** Aborted ballots in a row after which the caller is told that the lease is too busy. */
const BALLOTS_MAX = 24;

/** The longest random pause after an aborted ballot. sanlock waits up to 1 s here, which is where its tail comes from. */
const BACKOFF_MS_MAX = 24;

export interface AcquireTerms {
  readonly address: LeaseAddress;
  readonly luns: LunSet;
  readonly self: Self;
  readonly shared: boolean;
  readonly timestamp: bigint;
  readonly wallSeconds: bigint;
  readonly random: Random;
  /** The proof in hand, if any, that this generation of this host is silent. */
  readonly evidenceFor: (hostId: number, generation: bigint) => Evidence | undefined;
  /**
   * The lver that an earlier try of this generation left `undecided`, or undefined. When it has been decided for this
   * host meanwhile, that is the grant.
   */
  readonly undecidedLver?: bigint | undefined;
}

export interface Holder {
  readonly hostId: number;
  readonly generation: bigint;
  readonly lver: bigint;
  readonly shared: boolean;
  /** Seconds since 1970 as the holder wrote it; 0 when unknown. For people only. */
  readonly sinceWallSeconds: bigint;
}

export type AcquireOutcome =
  | { readonly kind: "granted"; readonly held: HeldLease; readonly evidence: readonly Evidence[] }
  | { readonly kind: "held"; readonly holders: readonly Holder[] }
  /** Ballot after ballot was overtaken by others. */
  | { readonly kind: "contended" }
  | { readonly kind: "missing" }
  | { readonly kind: "damaged"; readonly reason: string }
  | { readonly kind: "no-quorum"; readonly why: string }
  | { readonly kind: "not-armed"; readonly why: string }
  | { readonly kind: "undecided"; readonly lver: bigint; readonly why: string };

/** Reads the lease and tells who holds it, without taking anything. */
export type LookOutcome =
  | { readonly kind: "free"; readonly view: LeaseView; readonly evidence: readonly Evidence[] }
  | Extract<AcquireOutcome, { kind: "held" | "missing" | "damaged" | "no-quorum" }>;

export type Look = Pick<AcquireTerms, "address" | "luns" | "self" | "shared" | "evidenceFor">;

/**
 * One try: granted, or why not. Aborted ballots are repeated a bounded number of times. One caller of a node at a time:
 * two would write the same block.
 */
export function* acquireLease(terms: AcquireTerms): DiskProcedure<AcquireOutcome> {
  let mbalAtLeast = 0n;
  const proposal = new Proposal(terms);
  for (let attempt = 1; ; attempt++) {
    const turn = yield* io([readLeaseOp(terms.address)]);
    if (!isMajority(terms.luns, turn.luns)) {
      return proposal.settle({
        kind: "no-quorum",
        why: describeFailures(terms.luns, turn.luns),
      });
    }
    const outcome = viewLease(terms.address, terms.luns, doneOn(terms.luns, turn.luns), 0);
    if (outcome.kind === "view" && proposal.see(outcome.view)) {
      return yield* takeDecided(terms, outcome.view);
    }
    const look = judgeLease(terms, outcome);
    if (look.kind !== "free") {
      return proposal.settle(look);
    }
    if (attempt > BALLOTS_MAX) {
      return proposal.settle({ kind: "contended" });
    }
    const taken = yield* takeFree(terms, look, mbalAtLeast);
    if (taken.kind !== "aborted") {
      // `held` here was decided for this host, which gave it back: nothing is open.
      return taken.kind === "held" ? taken : proposal.settle(taken);
    }
    mbalAtLeast = taken.mbal;
    proposal.propose(look.view);
    yield* sleep(1 + terms.random.below(Math.min(BACKOFF_MS_MAX, 2 ** attempt)));
  }
}

/**
 * What this host has proposed and not seen decided. A ballot that is aborted after its phase 2 may still be finished by
 * the one that overtook it, with our value; so whoever proposed either finds out what became of it, or says `undecided`
 * and stays armed (DESIGN section 6, "Arming").
 */
export class Proposal {
  readonly #self: Self;
  #lver: bigint | undefined;
  #isOpen: boolean;

  constructor(terms: Pick<AcquireTerms, "self" | "undecidedLver">) {
    this.#self = terms.self;
    this.#lver = terms.undecidedLver;
    this.#isOpen = terms.undecidedLver !== undefined;
  }

  /** A ballot for the lver after this view's was aborted. */
  propose(view: LeaseView): void {
    this.#lver = nextLver(view);
    this.#isOpen = true;
  }

  /** Takes in what a majority shows now. True: the lver was decided for this host (see `takeDecided`). */
  see(view: LeaseView): boolean {
    const own = view.blocks[this.#self.hostId - 1];
    this.#isOpen =
      this.#lver !== undefined &&
      view.leader.lver < this.#lver &&
      own?.dblock.lver === this.#lver &&
      own.dblock.bal > 0n;
    return isDecidedFor(view, this.#self, this.#lver);
  }

  /** The outcome, or `undecided` where it would hide that the proposal is still open. */
  settle<T extends { readonly kind: string }>(
    outcome: T,
  ): T | Extract<AcquireOutcome, { kind: "undecided" }> {
    if (!this.#isOpen || this.#lver === undefined || isFinal(outcome.kind)) {
      return outcome;
    }
    return {
      kind: "undecided",
      lver: this.#lver,
      why: `a proposal of this node for it is still open (${outcome.kind})`,
    };
  }
}

function isFinal(kind: string): boolean {
  return kind === "granted" || kind === "undecided";
}

/** Arms, and takes a lease that was decided for this host while it was not looking. */
export function* takeDecided(terms: AcquireTerms, view: LeaseView): DiskProcedure<AcquireOutcome> {
  const { lver } = view.leader;
  const armed = yield* arm();
  if (!armed.accepted || !armed.standing.armed || !hasRight(armed)) {
    return { kind: "undecided", lver, why: whyNotArmed(armed) };
  }
  const outcome = yield* commitDecided(ballotTerms(terms, armed.nowMs), view);
  if (outcome.kind !== "won") {
    return outcome.kind === "undecided"
      ? outcome
      : { kind: "undecided", lver, why: `the commit ended ${outcome.kind}` };
  }
  return terms.shared
    ? yield* becomeShared(terms, outcome.held, [])
    : yield* settleExclusive(terms, outcome.held, outcome.view, []);
}

function ballotTerms(terms: AcquireTerms, nowMs: number): BallotTerms {
  return {
    nowMs,
    address: terms.address,
    luns: terms.luns,
    self: terms.self,
    timestamp: terms.timestamp,
    wallSeconds: terms.wallSeconds,
    shortHold: terms.shared,
  };
}

/** Arms, then runs one ballot on a lease that was just seen free. */
export function* takeFree(
  terms: AcquireTerms,
  look: Extract<LookOutcome, { kind: "free" }>,
  mbalAtLeast: bigint,
): DiskProcedure<AcquireOutcome | { readonly kind: "aborted"; readonly mbal: bigint }> {
  const armed = yield* arm();
  if (!armed.accepted || !armed.standing.armed || !hasRight(armed)) {
    return { kind: "not-armed", why: whyNotArmed(armed) };
  }
  const outcome: BallotOutcome = yield* runBallot(
    ballotTerms(terms, armed.nowMs),
    look.view,
    mbalAtLeast,
  );
  switch (outcome.kind) {
    case "won":
      return terms.shared
        ? yield* becomeShared(terms, outcome.held, look.evidence)
        : yield* settleExclusive(terms, outcome.held, outcome.view, look.evidence);
    case "lost":
      // Its owner is at work with it; the next look tells.
      return { kind: "aborted", mbal: mbalAtLeast };
    case "aborted":
    case "undecided":
    case "no-quorum":
      return outcome;
  }
}

function whyNotArmed(turn: {
  readonly standing: { readonly lost: boolean; readonly armed: boolean };
}): string {
  if (turn.standing.lost) {
    return "this node has lost its right to write; it must rejoin";
  }
  return turn.standing.armed
    ? "this node's heartbeat is older than T"
    : "the watchdog could not be armed and published on a majority";
}

/** Free, or held by hosts that are all proven silent; else who holds it. */
export function judgeLease(terms: Look, outcome: ReturnType<typeof viewLease>): LookOutcome {
  switch (outcome.kind) {
    case "missing":
      return outcome;
    case "damaged":
      return outcome;
    case "more-hosts":
      return {
        kind: "damaged",
        reason: `the lease has room for ${outcome.numHosts} hosts, more were not read`,
      };
    case "view":
      break;
  }
  const { view } = outcome;
  const evidence: Evidence[] = [];
  const holders: Holder[] = [];
  for (const holder of holdersOf(view, terms.shared)) {
    if (isOwnPast(holder, terms.self)) {
      evidence.push(evidenceOfOwnPast(holder));
      continue;
    }
    const proof = terms.evidenceFor(holder.hostId, holder.generation);
    if (proof?.hostId === holder.hostId && proof.generation === holder.generation) {
      evidence.push(proof);
    } else {
      holders.push(holder);
    }
  }
  return holders.length > 0 ? { kind: "held", holders } : { kind: "free", view, evidence };
}

/** Everybody who stands in the way: the leader's owner, and for an exclusive request the shared holders too. */
export function holdersOf(view: LeaseView, forShared: boolean): readonly Holder[] {
  const { leader } = view;
  const common = { lver: leader.lver, sinceWallSeconds: leader.writeTimestamp };
  const holders: Holder[] = [];
  if (!isLeaseFree(view)) {
    holders.push({
      ...common,
      hostId: Number(leader.ownerId),
      generation: leader.ownerGeneration,
      shared: false,
    });
  }
  if (!forShared) {
    for (const holder of sharedHolders(view)) {
      holders.push({ ...common, ...holder, shared: true });
    }
  }
  return holders;
}

/** An earlier generation of this host id: joining needed evidence against it, so it is known to be gone. */
function isOwnPast(holder: Holder, self: Self): boolean {
  return holder.hostId === self.hostId && holder.generation < self.generation;
}

/** It ended without giving the lease back, so the target may still hold commands of it. */
function evidenceOfOwnPast(holder: Holder): Evidence {
  const { hostId, generation } = holder;
  const detail = "an earlier generation of this very host id, which ended without releasing";
  return { kind: "rejoined", hostId, generation, detail };
}

function* settleExclusive(
  terms: AcquireTerms,
  held: HeldLease,
  view: LeaseView,
  evidence: readonly Evidence[],
): DiskProcedure<AcquireOutcome> {
  // Since the ballot is won nobody can become a shared holder; those that were there before are in this view.
  const living: Holder[] = [];
  const proofs = [...evidence];
  for (const holder of sharedHolders(view)) {
    const shared = { ...holder, lver: held.leader.lver, shared: true, sinceWallSeconds: 0n };
    if (isOwnPast(shared, terms.self)) {
      proofs.push(evidenceOfOwnPast(shared));
      continue;
    }
    const proof = terms.evidenceFor(holder.hostId, holder.generation);
    if (proof?.generation !== holder.generation) {
      living.push(shared);
      continue;
    }
    proofs.push(proof);
    yield* clearShared(terms, view, holder.hostId);
  }
  if (living.length === 0) {
    return { kind: "granted", held, evidence: oncePerGeneration(proofs) };
  }
  const released = yield* releaseLeader(terms.luns, terms.self, held, false);
  return released.kind === "released"
    ? { kind: "held", holders: living }
    : { kind: "undecided", lver: held.leader.lver, why: released.why };
}

/** The look before the ballot and the one after it may have found the same proof. */
function oncePerGeneration(proofs: readonly Evidence[]): readonly Evidence[] {
  return proofs.filter(
    (proof, index) =>
      proofs.findIndex(
        (other) => other.hostId === proof.hostId && other.generation === proof.generation,
      ) === index,
  );
}

/** Takes SHARED out of the block of a host that is proven silent; its ballot numbers stay. */
function* clearShared(terms: AcquireTerms, view: LeaseView, hostId: number): DiskProcedure<void> {
  const block = view.blocks[hostId - 1];
  if (block === undefined) {
    return;
  }
  // When this fails the block still says SHARED, and the next exclusive request finds and clears it again.
  yield* io([
    writeBlockOp(terms.address, hostId, {
      ...block,
      mode: { shared: false, generation: 0n },
      sequence: block.sequence + 1n,
    }),
  ]);
}

function* becomeShared(
  terms: AcquireTerms,
  held: HeldLease,
  evidence: readonly Evidence[],
): DiskProcedure<AcquireOutcome> {
  const announced = yield* announceShared(terms, held);
  const outcome =
    announced === undefined
      ? undefined
      : yield* releaseLeader(terms.luns, terms.self, announced, true);
  return outcome?.kind === "released"
    ? { kind: "granted", held: outcome.held, evidence }
    : {
        kind: "undecided",
        lver: held.leader.lver,
        why: outcome?.why ?? "SHARED could not be written to a majority",
      };
}

/**
 * With several LUNs SHARED must be on a majority before the lease looks free on any: somebody who sees it free on one
 * LUN goes on to later lvers, and then wins one exclusively with a majority that does not show the shared holder. On one
 * LUN the order of the writes is enough.
 * @returns the hold with its new block; undefined when no majority has it
 */
function* announceShared(
  { address, luns, self }: AcquireTerms,
  held: HeldLease,
): DiskProcedure<HeldLease | undefined> {
  if (luns.total === 1) {
    return held;
  }
  const block = {
    ...held.block,
    mode: { shared: true, generation: self.generation },
    sequence: held.block.sequence + 1n,
  };
  const turn = yield* io([writeBlockOp(address, self.hostId, block)]);
  return isMajority(luns, turn.luns) ? { ...held, block } : undefined;
}

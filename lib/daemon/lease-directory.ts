/**
 * Where leases lie, by name. Looking a name up costs two reads, so addresses are remembered, a bounded number of them;
 * one that proves wrong (the lease was deleted, or made again elsewhere) is forgotten and looked up anew. A remembered
 * address is never trusted: the leader it leads to must bear the name.
 */
import { LRUCache } from "lru-cache";

import { type LeaseAddress } from "../lease/lease-view.js";

const REMEMBERED_MAX = 1_024;

/** The resource index of the region. */
export interface LeaseIndex {
  /** @throws ERR_NO_QUORUM, ERR_INDEX_DAMAGED */
  lookup(name: string): Promise<LeaseAddress | undefined>;
  list(): Promise<readonly LeaseAddress[]>;
  /** @throws ERR_LEASE_EXISTS, ERR_REGION_FULL, ERR_LEASE_NAME */
  create(name: string): Promise<LeaseAddress>;
  /** @throws ERR_LEASE_HELD, ERR_NO_SUCH_LEASE */
  remove(name: string): Promise<void>;
}

export class LeaseDirectory {
  readonly #index: LeaseIndex;
  readonly #known = new LRUCache<string, LeaseAddress>({ max: REMEMBERED_MAX });

  constructor(index: LeaseIndex) {
    this.#index = index;
  }

  async lookup(name: string): Promise<LeaseAddress | undefined> {
    const known = this.#known.get(name);
    if (known !== undefined) {
      return known;
    }
    const address = await this.#index.lookup(name);
    if (address !== undefined) {
      this.#known.set(name, address);
    }
    return address;
  }

  forget(name: string): void {
    this.#known.delete(name);
  }

  async list(): Promise<readonly LeaseAddress[]> {
    return await this.#index.list();
  }

  async create(name: string): Promise<LeaseAddress> {
    this.#known.delete(name);
    const address = await this.#index.create(name);
    this.#known.set(name, address);
    return address;
  }

  async remove(name: string): Promise<void> {
    this.#known.delete(name);
    await this.#index.remove(name);
  }
}

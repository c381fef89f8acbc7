// One market's order book, kept as the contract says: a snapshot, then changes whose numbers follow one another.

import { units } from "./decimals.js";

export class Book {
  constructor(priceDecimals, sizeDecimals) {
    this.priceDecimals = priceDecimals;
    this.sizeDecimals = sizeDecimals;
    this.bids = new Map();
    this.asks = new Map();
    this.lastId = null;
    this.waiting = [];
  }

  /** Start from the REST snapshot; changes that came before it are applied or dropped by their numbers. */
  load(snapshot) {
    this.bids.clear();
    this.asks.clear();
    this.#set(this.bids, snapshot.bids);
    this.#set(this.asks, snapshot.asks);
    this.lastId = Number(snapshot.lastUpdateId);
    const waiting = this.waiting;
    this.waiting = [];
    return waiting.every((change) => this.apply(change));
  }

  /** False when a change is missing: then the book must be loaded again. */
  apply(change) {
    if (this.lastId === null) {
      this.waiting.push(change);
      return true;
    }
    if (change.u <= this.lastId) return true;
    if (change.U > this.lastId + 1) return false;
    this.#set(this.bids, change.b);
    this.#set(this.asks, change.a);
    this.lastId = change.u;
    return true;
  }

  /** The best `count` levels of a side, best first: [{price, size, total}] in units. */
  top(side, count) {
    const levels = [...(side === "bids" ? this.bids : this.asks)];
    levels.sort(([a], [b]) => (side === "bids" ? (a < b ? 1 : -1) : a < b ? -1 : 1));
    let total = 0n;
    return levels.slice(0, count).map(([price, size]) => {
      total += size;
      return { price, size, total };
    });
  }

  #set(levels, changes) {
    for (const [price, size] of changes) {
      const key = units(price, this.priceDecimals);
      const value = units(size, this.sizeDecimals);
      if (value) levels.set(key, value);
      else levels.delete(key);
    }
  }
}

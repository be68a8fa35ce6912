// Calls into the engine and their answers: one wake-up of the event loop for all that finished meanwhile.

import { AsyncLocalStorage } from "node:async_hooks";
import { setInterval } from "node:timers";
import { fromNative } from "./error";
import { logLine } from "./logger";
import { type NativeBridge, native } from "./native";

/** Runs a function outside of every request: in the context in which the package was loaded. */
export const outside: <R>(run: () => R) => R = AsyncLocalStorage.snapshot();

/** Whoever waits for an answer. A receipt is an id and whether somebody wanted the event. */
export interface Waiting {
  answered(value: unknown, routed?: boolean | null): void;
  failed(error: unknown): void;
}

class Call<T> implements Waiting {
  readonly #resolve: (value: T) => void;
  readonly #convert: ((value: never) => T) | undefined;
  readonly failed: (error: unknown) => void;

  constructor(resolve: (value: T) => void, reject: (error: unknown) => void, convert?: (value: never) => T) {
    this.#resolve = resolve;
    this.failed = reject;
    this.#convert = convert;
  }

  answered(value: unknown): void {
    this.#resolve(this.#convert === undefined ? (value as T) : this.#convert(value as never));
  }
}

/** Longest interval that a timer can have. */
const NEVER = 2 ** 31 - 1;

/** This thread's way to the engine. */
export class Bridge {
  readonly native: NativeBridge;
  readonly #waiting = new Map<number, Waiting>();
  /** Keeps the process alive while somebody waits for an answer, or holds it. */
  readonly #alive = setInterval(() => {}, NEVER).unref();
  #last = 0;
  #holds = 0;

  constructor() {
    const Native = native().Bridge;
    this.native = new Native(() => this.#drain());
  }

  /** Starts an operation; its answer is passed through `convert`. */
  call<T>(start: (op: number) => void, convert?: (value: never) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const op = this.expect(new Call(resolve, reject, convert));
      try {
        start(op);
      } catch (error) {
        this.#waiting.delete(op);
        this.#rest();
        reject(fromNative(error));
      }
    });
  }

  /** The number of an operation that is about to be started, and who waits for its answer. */
  expect(waiting: Waiting): number {
    const op = this.#op();
    if (this.#waiting.size === 0 && this.#holds === 0) this.#alive.ref();
    this.#waiting.set(op, waiting);
    return op;
  }

  /** Keeps the process alive until as many `release` calls. */
  hold(): void {
    this.#holds += 1;
    this.#alive.ref();
  }

  release(): void {
    this.#holds -= 1;
    this.#rest();
  }

  #op(): number {
    do {
      this.#last = (this.#last % NEVER) + 1;
    } while (this.#waiting.has(this.#last));
    return this.#last;
  }

  #drain(): void {
    const answers = this.native.drain();
    if (answers[0] !== null) {
      const receipts = JSON.parse(answers[0] as string) as (number | string | boolean | null)[];
      for (let at = 0; at < receipts.length; at += 3) {
        this.#take(receipts[at] as number)?.answered(receipts[at + 1], receipts[at + 2] as boolean | null);
      }
    }
    for (let at = 1; at < answers.length; at += 2) {
      const op = answers[at] as number;
      const value = answers[at + 1];
      if (op === 0) logLine(value as string);
      else if (op < 0) this.#take(-op)?.failed(fromNative(value));
      else this.#take(op)?.answered(value);
    }
    this.#rest();
  }

  #take(op: number): Waiting | undefined {
    const waiting = this.#waiting.get(op);
    this.#waiting.delete(op);
    return waiting;
  }

  #rest(): void {
    if (this.#waiting.size === 0 && this.#holds === 0) this.#alive.unref();
  }
}

let shared: Bridge | undefined;

/** This thread's bridge. */
export function bridge(): Bridge {
  shared ??= outside(() => new Bridge());
  return shared;
}

// Calls into the engine and their answers: one wake-up of the event loop for all that finished meanwhile.

import { AsyncLocalStorage } from "node:async_hooks";
import { setInterval } from "node:timers";
import { fromNative } from "./error";
import { logLine } from "./logger";
import { type NativeBridge, native } from "./native";

/** Runs a function outside of every request: in the context in which the package was loaded. */
export const outside: <R>(run: () => R) => R = AsyncLocalStorage.snapshot();

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  convert: ((value: never) => unknown) | undefined;
  done: (() => void) | undefined;
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

  /** Starts an operation; its answer is passed through `convert`. `done` is called once it is over, whatever came of it. */
  call<T>(start: (op: number) => void, convert?: (value: never) => T, done?: () => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const op = this.#op();
      if (this.#waiting.size === 0 && this.#holds === 0) this.#alive.ref();
      this.#waiting.set(op, { resolve: resolve as (value: unknown) => void, reject, convert, done });
      try {
        start(op);
      } catch (error) {
        this.#waiting.delete(op);
        this.#rest();
        done?.();
        reject(fromNative(error));
      }
    });
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
    for (let at = 0; at < answers.length; at += 2) {
      const op = answers[at] as number;
      const value = answers[at + 1];
      if (op === 0) {
        logLine(value as string);
        continue;
      }
      const waiting = this.#waiting.get(Math.abs(op));
      if (waiting === undefined) continue;
      this.#waiting.delete(Math.abs(op));
      waiting.done?.();
      if (op < 0) waiting.reject(fromNative(value));
      else waiting.resolve(waiting.convert === undefined ? value : waiting.convert(value as never));
    }
    this.#rest();
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

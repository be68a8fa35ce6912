import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import type { AbortSignalLike } from "./abort";
import type { DomainEvent } from "./event";

/** The platform's `AbortSignal`, where its types are there. */
export type PlatformAbortSignal = typeof globalThis extends { AbortSignal: { prototype: infer Signal } }
  ? Signal
  : AbortSignalLike;

/** What a handler is told beside its event. */
export interface HandlerContext {
  /** The subscription's name. */
  readonly subscription: string;
  /**
   * Fires when the handler's time-out has passed, or when its event was released at the end of a drain: what it does
   * from then on may be done again elsewhere.
   */
  readonly signal: PlatformAbortSignal;
}

const current = new AsyncLocalStorage<DomainEvent>();

/** The event whose handler runs, wherever in its asynchronous calls; `undefined` outside of handlers. */
export function currentEvent(): DomainEvent | undefined {
  return current.getStore();
}

/** Runs a handler in a context of its own: what it enters (`enterWith`) is not seen by the handlers after it. */
export function within<R>(event: DomainEvent, run: () => R): R {
  const message = new AsyncResource("TidingsMessage", { requireManualDestroy: true });
  return message.runInAsyncScope(() => current.run(event, run));
}

/** @internal One handler's context. The signal is made when it is first asked for: most handlers never do. */
export class Context implements HandlerContext {
  readonly subscription: string;
  #controller: AbortController | undefined;
  #reason: Error | undefined;

  constructor(subscription: string) {
    this.subscription = subscription;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  abort(reason: Error): void {
    this.#reason ??= reason;
    this.#controller?.abort(reason);
  }
}

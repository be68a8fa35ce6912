import type { DomainEvent } from "./event";

/**
 * Code around handling or publishing. It may pass on another event, look at the result, or not call `next` at all. The
 * one added first is the outermost.
 */
export type Middleware<R = unknown> = (event: DomainEvent, next: (event?: DomainEvent) => Promise<R>) => Promise<R> | R;

/** One function of many: each middleware around the next, in the end `last`. */
export function compose<R>(
  chain: readonly Middleware<R>[],
  event: DomainEvent,
  last: (event: DomainEvent) => Promise<R>,
): Promise<R> {
  const run = async (at: number, current: DomainEvent): Promise<R> => {
    const middleware = chain[at];
    if (middleware === undefined) return last(current);
    let called = false;
    return middleware(current, (changed = current) => {
      if (called) return Promise.reject(new Error("a middleware called next() twice for one event"));
      called = true;
      return run(at + 1, changed);
    });
  };
  return run(0, event);
}

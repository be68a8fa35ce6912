/** An `AbortSignal`, as Node and the browser have it. */
export interface AbortSignalLike {
  readonly aborted: boolean;
  readonly reason?: unknown;
  addEventListener(type: "abort", listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** Options of everything that waits. */
export interface Abortable {
  /** Ends the wait: the promise is rejected with the signal's reason. */
  signal?: AbortSignalLike | undefined;
}

/** Waits for `promise`, at most until the signal; `onAbort` undoes what was begun. */
export function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignalLike | undefined,
  onAbort?: () => void,
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const abort = () => {
      onAbort?.();
      reject(reasonOf(signal));
    };
    if (signal.aborted) {
      // Nobody is left to hear what becomes of it.
      promise.catch(() => {});
      abort();
      return;
    }
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** Throws if the signal has fired. */
export function throwIfAborted(signal: AbortSignalLike | undefined): void {
  if (signal?.aborted) throw reasonOf(signal);
}

function reasonOf(signal: AbortSignalLike): unknown {
  if (signal.reason !== undefined) return signal.reason;
  return Object.assign(new Error("The operation was aborted"), { name: "AbortError" });
}

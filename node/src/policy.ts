import { type Delay, toMs } from "./delay";
import type { NativePolicy } from "./native";

/** An error's class, its name, or its `code`. */
export type ErrorType = string | (abstract new (...args: never[]) => unknown);

/** What every {@link RetryPolicy} can be told. */
export interface RetryPolicyOptions {
  /** Most retries of one event, those that the handler asks for included. */
  maxRetries: number;
  /** Up to this share of each delay is added at random (0.1: up to 10 % more). */
  jitter?: number | undefined;
  /** Retries only errors of these types. */
  retryOn?: readonly ErrorType[] | undefined;
  /** Never retries errors of these types; stronger than `retryOn`. */
  giveUpOn?: readonly ErrorType[] | undefined;
  /** Gives up on events that failed first longer ago than this. */
  maxAge?: Delay | undefined;
}

/**
 * When a failed event is tried again, and when it is given up on.
 *
 * ```ts
 * RetryPolicy.fixed({ maxRetries: 3, delay: { seconds: 10 } });
 * RetryPolicy.exponential({ maxRetries: 8, initial: { ms: 200 }, factor: 2, max: { seconds: 300 }, jitter: 0.2 });
 * ```
 */
export class RetryPolicy {
  /** @internal */
  readonly native: NativePolicy;

  private constructor(native: NativePolicy) {
    this.native = native;
  }

  /** Always the same delay. */
  static fixed(options: RetryPolicyOptions & { delay: Delay }): RetryPolicy {
    return new RetryPolicy({ ...common(options), initialMs: toMs(options.delay, "delay") });
  }

  /** Growing delays: `initial`, `initial × factor` (default 2), … at most `max`. */
  static exponential(
    options: RetryPolicyOptions & { initial: Delay; factor?: number | undefined; max: Delay },
  ): RetryPolicy {
    return new RetryPolicy({
      ...common(options),
      initialMs: toMs(options.initial, "initial"),
      factor: options.factor ?? 2,
      maxMs: toMs(options.max, "max"),
    });
  }
}

function common(options: RetryPolicyOptions): Omit<NativePolicy, "initialMs"> {
  if (!Number.isInteger(options.maxRetries) || options.maxRetries < 0) {
    throw new TypeError(`maxRetries must be a whole number of at least 0, not ${String(options.maxRetries)}`);
  }
  return {
    maxRetries: options.maxRetries,
    jitter: options.jitter,
    retryOn: options.retryOn?.map(nameOf),
    giveUpOn: options.giveUpOn?.map(nameOf),
    maxAgeMs: options.maxAge === undefined ? undefined : toMs(options.maxAge, "maxAge"),
  };
}

function nameOf(type: ErrorType): string {
  return typeof type === "string" ? type : type.name;
}

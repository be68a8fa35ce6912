// What a handler may throw to say what happens to its event, and what any other error means.

import { type Delay, toMs } from "./delay";
import { type NativeOutcome, type NativeRaised, native } from "./native";

/**
 * Throw it to handle the event again later; at most `maxRetries` times, then it is a dead letter.
 *
 * ```ts
 * throw new Retry({ seconds: 5 });
 * throw new Retry();                       // when the subscription's policy says, else after 10 s
 * ```
 */
export class Retry extends Error {
  /** Milliseconds to wait; `undefined`: the policy decides. */
  readonly afterMs: number | undefined;

  /** @throws TypeError for a bare number: say `{ seconds }` or `{ ms }`. */
  constructor(after?: Delay | undefined, message?: string) {
    super(message ?? "to be retried");
    this.name = "Retry";
    this.afterMs = after === undefined ? undefined : toMs(after, "Retry");
  }
}

/** Throw it to give up on the event at once; `reason` is a short, stable text that replays can filter by. */
export class DeadLetter extends Error {
  readonly reason: string;
  readonly details: string | undefined;

  constructor(reason: string, details?: string) {
    super(details === undefined ? reason : `${reason}: ${details}`);
    this.name = "DeadLetter";
    this.reason = reason;
    this.details = details;
  }
}

/** Throw it to drop the event: acknowledged, and counted apart from the handled ones. */
export class Discard extends Error {
  constructor(message = "to be discarded") {
    super(message);
    this.name = "Discard";
  }
}

/** Rewrites error texts before they are kept or logged. */
export type Redact = (text: string) => string;

/** The inbox's database failed: no attempt is spent. */
export class StoreFailed extends Error {}

/** What an error of a handler means. {@link Retry} and the like say so themselves, also as the `cause` of another one. */
export function outcomeOf(error: unknown, redact: Redact | undefined): NativeOutcome {
  return (
    native().asked(raised(error, redact)) ?? {
      kind: "fail",
      errorTypes: errorTypes(error),
      message: clean(messageOf(error), redact),
      stack: error instanceof Error && error.stack !== undefined ? clean(error.stack, redact) : undefined,
    }
  );
}

/** The error and its causes, as the engine knows them. Causes that go in circles end. */
function raised(error: unknown, redact: Redact | undefined): NativeRaised[] {
  const seen = new Set<unknown>();
  for (let one: unknown = error; one instanceof Error && !seen.has(one); one = one.cause) seen.add(one);
  return Array.from(seen, (one): NativeRaised => {
    if (one instanceof Retry) {
      const message = one.message === "to be retried" ? undefined : clean(one.message, redact);
      return { kind: "retry", afterMs: one.afterMs, message };
    }
    if (one instanceof DeadLetter) {
      return { kind: "dead-letter", reason: one.reason, message: one.details && clean(one.details, redact) };
    }
    if (one instanceof Discard) return { kind: "discard" };
    return { kind: one instanceof StoreFailed ? "store-failed" : "other" };
  });
}

/** A handler that ran longer than its time-out. */
export function timedOut(ms: number): NativeOutcome {
  return { kind: "timeout", errorTypes: ["Timeout"], message: `the handler ran longer than ${ms} ms` };
}

/** The error's classes, most specific first, and its `code` if it has one: what `retryOn` and `giveUpOn` may name. */
export function errorTypes(error: unknown): string[] {
  if (typeof error !== "object" || error === null) return [error === null ? "null" : typeof error];
  const types: string[] = [];
  const add = (name: unknown) => {
    if (typeof name === "string" && name !== "" && !types.includes(name)) types.push(name);
  };
  for (let at = Object.getPrototypeOf(error); at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    add(at.constructor?.name);
  }
  add((error as { name?: unknown }).name);
  add((error as { code?: unknown }).code);
  return types.length > 0 ? types : ["Object"];
}

/** What is thrown need not be an error, nor have a text that can be had. */
function messageOf(error: unknown): string {
  try {
    if (error instanceof Error) {
      return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`;
    }
    if (typeof error === "object" && error !== null) return JSON.stringify(error) ?? String(error);
    return String(error);
  } catch {
    return "an error without a text";
  }
}

function clean(text: string, redact: Redact | undefined): string {
  if (redact === undefined) return text;
  try {
    return redact(text);
  } catch {
    // The hook must neither keep the dead letter from being written nor let the text through.
    return "[the redact hook threw]";
  }
}

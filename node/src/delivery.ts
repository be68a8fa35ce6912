import { bridge } from "./bridge";
import { type Delay, toMs } from "./delay";
import { DomainEvent, type Parts, received } from "./event";
import type { NativeOutcome, NativeSubscription } from "./native";

/**
 * One event handed over once, as {@link Subscriber.events} gives it. Settling resolves once that is durable; a second
 * settlement rejects with `STALE_DELIVERY`.
 */
export class Delivery<T = unknown> extends DomainEvent<T> {
  readonly #native: NativeSubscription;
  readonly #number: number;
  #settled = false;

  /** @internal */
  constructor(native: NativeSubscription, number: number, parts: Parts) {
    super(received, parts);
    this.#native = native;
    this.#number = number;
  }

  /** Whether it is settled, or about to be. */
  get settled(): boolean {
    return this.#settled;
  }

  /** Handled. */
  ack(): Promise<void> {
    return this.#settle({ kind: "ok" });
  }

  /** To be handled again after this time, or when the policy says. At most `maxRetries` times, then a dead letter. */
  retry(after?: Delay): Promise<void> {
    return this.#settle({ kind: "retry", afterMs: after === undefined ? undefined : toMs(after, "retry") });
  }

  /** Given up on, whatever the policy says. */
  deadLetter(reason: string, details?: string): Promise<void> {
    return this.#settle({ kind: "dead-letter", reason, message: details });
  }

  /** Not wanted: acknowledged and counted apart. */
  discard(): Promise<void> {
    return this.#settle({ kind: "discard" });
  }

  /** Back to the queue, no attempt spent. */
  release(): Promise<void> {
    return this.#settle({ kind: "release" });
  }

  /** @internal Settles without waiting, if that has not happened yet. */
  settleSoon(outcome: NativeOutcome): void {
    if (this.#settled) return;
    this.#settled = true;
    if (outcome.kind === "ok") this.#native.settleOk(Uint32Array.of(this.#number));
    else this.#native.settle(this.#number, outcome);
  }

  #settle(outcome: NativeOutcome): Promise<void> {
    this.#settled = true;
    return bridge().call<void>(
      (op) => this.#native.settleAndWait(op, this.#number, outcome),
      () => undefined,
    );
  }
}

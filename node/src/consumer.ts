// Pulls the events of one subscription in batches, runs its handler on them, and settles in batches.

import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import { bridge, outside } from "./bridge";
import type { Broker } from "./broker";
import { Context, type HandlerContext, within } from "./context";
import { DomainEvent, FIELDS } from "./event";
import { compose, type Middleware } from "./middleware";
import { type NativeOptions, type NativeOutcome, type NativeSubscription, native, type RawBatch } from "./native";
import { outcomeOf, type Redact, timedOut } from "./outcome";
import { type StandardSchema, validated } from "./schema";
import { isTracing, traced } from "./telemetry";

/** Handles events: what it returns is passed over, what it throws decides what happens to the event. */
export type Handler<T = unknown> = (event: DomainEvent<T>, context: HandlerContext) => unknown;

/** Handles events inside a transaction of an `Inbox`, which commits when it resolves. */
export type InboxHandler<T = unknown, Tx = unknown> = (
  event: DomainEvent<T>,
  tx: Tx,
  context: HandlerContext,
) => unknown;

/** What a consumer needs to know of its subscription. */
export interface Registration {
  options: NativeOptions;
  handler: Handler<never>;
  schema: StandardSchema<never> | undefined;
  redact: Redact | undefined;
}

/** Events that are taken in one turn of the event loop. */
const BATCH = 128;
/** Milliseconds after which the event loop gets its turn, however many events there are. */
const TURN = 4;

/** What a consumer says to its subscriber. */
export interface Listener {
  /** A handler has failed, or thrown `Retry` and the like. */
  failed(registration: Registration, event: DomainEvent, outcome: NativeOutcome, error: unknown): void;
  /** The subscription has ended by an error that it cannot recover from. */
  broken(registration: Registration, error: unknown): void;
}

export class Consumer {
  readonly native: NativeSubscription;
  readonly registration: Registration;
  readonly #broker: Broker;
  readonly #middleware: readonly Middleware[];
  readonly #listener: Listener;
  readonly #concurrency: number;
  readonly #running = new Set<Context>();
  /** Taken and not begun. */
  #waiting: RawBatch = [];
  #at = 0;
  #handled: number[] = [];
  #handlerMs = 0;
  #scheduled = false;
  #pulling = false;
  #ended = false;
  /** With one handler at a time: how many are taken for it. Grows while handlers never wait. */
  #ahead = 1;
  /** When the event loop gets its turn. */
  #until = 0;
  #beginning = false;
  #watching = false;

  constructor(broker: Broker, registration: Registration, middleware: readonly Middleware[], listener: Listener) {
    this.#broker = broker;
    this.registration = registration;
    this.#middleware = middleware;
    this.#listener = listener;
    this.#concurrency = registration.options.concurrency ?? 1;
    const { Subscription } = native();
    this.native = new Subscription(broker.native);
  }

  /** Declares the subscription. */
  open(): Promise<void> {
    return this.#broker.call<void>(
      (op) => this.native.open(op, this.registration.options),
      () => undefined,
    );
  }

  /** Begins to handle. Handlers never run in the caller's context. */
  run(): void {
    outside(() => this.#turn());
  }

  /** Takes no more events; those that no handler has begun with go back. */
  end(): void {
    this.#ended = true;
    this.#putBack();
  }

  /** After the drain: what still runs has lost its event. */
  abort(): void {
    const reason = new Error(`the subscription ${this.registration.options.name} was stopped before the handler ended`);
    for (const context of this.#running) context.abort(reason);
  }

  /** One turn of the event loop: settle what is done, take what is free, begin. */
  #turn(): void {
    this.#scheduled = false;
    this.#until = performance.now() + TURN;
    this.#settle();
    if (this.#at >= this.#waiting.length) this.#pull();
    this.#begin();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  #settle(): void {
    if (this.#handled.length === 0) return;
    this.native.settleOk(Uint32Array.from(this.#handled));
    this.native.handled(this.#handled.length, this.#handlerMs);
    this.#handled = [];
    this.#handlerMs = 0;
  }

  #pull(): void {
    if (this.#ended || this.#pulling) return;
    const free = this.#concurrency - this.#running.size;
    if (free <= 0) return;
    const most = this.#concurrency === 1 ? this.#ahead : Math.min(free, BATCH);
    try {
      const batch = this.native.tryNext(most);
      if (batch === null) this.#ended = true;
      else if (batch.length > 0) this.#take(batch);
      else this.#wait(most);
    } catch (error) {
      this.#broken(error);
    }
  }

  #wait(most: number): void {
    this.#pulling = true;
    bridge()
      .call<RawBatch>((op) => this.native.next(op, most))
      .then(
        (batch) => {
          this.#pulling = false;
          if (batch.length === 0) this.#ended = true;
          this.#take(batch);
          this.#until = performance.now() + TURN;
          if (this.#ended) this.#putBack();
          else this.#begin();
        },
        (error) => {
          this.#pulling = false;
          this.#broken(error);
        },
      );
  }

  #broken(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#listener.broken(this.registration, error);
  }

  #take(batch: RawBatch): void {
    this.#waiting = batch;
    this.#at = 0;
  }

  /** Begins with what was taken, as far as handlers are free and the turn lasts. */
  #begin(): void {
    if (this.#beginning) return;
    this.#beginning = true;
    while (this.#at < this.#waiting.length && this.#running.size < this.#concurrency && !this.#ended) {
      if (performance.now() > this.#until) break;
      const at = this.#at;
      this.#at += FIELDS;
      this.#handle(this.#waiting, at);
    }
    this.#beginning = false;
    if (this.#ended || this.#pulling) return;
    if (this.#running.size < this.#concurrency) this.#schedule();
    else if (this.#at < this.#waiting.length && this.#concurrency === 1) this.#watch();
  }

  /** If the handler is still at it in the next turn it waits for something: those behind it need not wait with it. */
  #watch(): void {
    if (this.#watching) return;
    this.#watching = true;
    const [context] = this.#running;
    setImmediate(() => {
      this.#watching = false;
      if (this.#at >= this.#waiting.length || this.#running.size === 0) return;
      if (context === undefined || !this.#running.has(context)) {
        this.#watch();
        return;
      }
      this.#ahead = 1;
      this.#putBack();
    });
  }

  #putBack(): void {
    const numbers: number[] = [];
    for (; this.#at < this.#waiting.length; this.#at += FIELDS) numbers.push(this.#waiting[this.#at] as number);
    this.#waiting = [];
    this.#at = 0;
    if (numbers.length > 0) this.native.putBack(Uint32Array.from(numbers));
  }

  #handle(batch: RawBatch, at: number): void {
    const number = batch[at] as number;
    const event = DomainEvent.received(DomainEvent.read(batch, at));
    const context = new Context(this.registration.options.name);
    const began = performance.now();
    let late: NativeOutcome | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = this.registration.options.timeoutMs;
    if (limit !== undefined) {
      timer = setTimeout(() => {
        late = timedOut(limit);
        context.abort(new Error(late.message));
      }, limit);
    }
    const over = (outcome: NativeOutcome | undefined, error?: unknown) => {
      if (timer !== undefined) clearTimeout(timer);
      this.#handlerMs += performance.now() - began;
      this.#running.delete(context);
      this.#done(number, event, late ?? outcome, error);
    };
    this.#running.add(context);
    let result: unknown;
    try {
      result = within(event, () => this.#call(event, context));
    } catch (error) {
      over(outcomeOf(error, this.registration.redact), error);
      return;
    }
    if (typeof (result as PromiseLike<unknown> | undefined)?.then === "function") {
      (result as PromiseLike<unknown>).then(
        () => over(undefined),
        (error) => over(outcomeOf(error, this.registration.redact), error),
      );
    } else {
      over(undefined);
    }
  }

  #call(event: DomainEvent, context: Context): unknown {
    const { handler, schema, options } = this.registration;
    if (this.#middleware.length === 0 && schema === undefined && !isTracing()) {
      return handler(event as DomainEvent<never>, context);
    }
    const handle = async (last: DomainEvent): Promise<unknown> => {
      const checked = schema === undefined ? (last as DomainEvent<never>) : await validated(schema, last);
      return handler(checked, context);
    };
    return traced(options.name, event, () => compose(this.#middleware, event, handle));
  }

  #done(number: number, event: DomainEvent, outcome: NativeOutcome | undefined, error: unknown): void {
    if (outcome === undefined) {
      this.#handled.push(number);
      if (this.#concurrency === 1 && this.#ahead < BATCH) this.#ahead *= 2;
    } else {
      this.native.settle(number, outcome);
      this.native.handled(1, this.#handlerMs);
      this.#handlerMs = 0;
      this.#listener.failed(this.registration, event, outcome, error);
    }
    // What is done is settled in the next turn, whoever still runs; the next one begins in this turn.
    this.#schedule();
    if (this.#at < this.#waiting.length && performance.now() < this.#until) this.#begin();
  }
}

import { type Abortable, abortable, throwIfAborted } from "./abort";
import { bridge } from "./bridge";
import { type Broker, type BrokerOptions, brokerOf, type Metric } from "./broker";
import { Consumer, type Handler, type InboxHandler, type Registration } from "./consumer";
import { type Delay, toMs } from "./delay";
import { failure } from "./error";
import type { DomainEvent } from "./event";
import { type DeliveryStream, iterate } from "./events";
import { type Inbox, MemoryInbox } from "./inbox";
import { Life, type LifeEvents } from "./life";
import type { Middleware } from "./middleware";
import { Running, type SubscriptionHealth } from "./running";
import { nativeOptions, type SubscriptionOptions } from "./subscription-options";

/** Options of a {@link Subscriber}. */
export interface SubscriberOptions extends BrokerOptions {
  /** How long `stop` waits for handlers (default 30 s). */
  drainTimeout?: Delay | undefined;
}

/** Options of {@link Subscriber.handle}. */
export interface HandleOptions<T = unknown> extends SubscriptionOptions<T> {
  /** Name of the subscription: 1 to 200 characters of `A–Z a–z 0–9 . _ : -`. */
  name: string;
}

/** Options of {@link Subscriber.start}. */
export interface StartOptions extends Abortable {
  /** Stops at SIGINT and SIGTERM, and ends the process once handlers have finished. Default: no. */
  handleSignals?: boolean | undefined;
}

const DRAIN_MS = 30_000;

/**
 * Handles the events of named subscriptions.
 *
 * Every subscription gets its own durable copy of the events it is bound to; processes with the same name compete for
 * them. Delivery is at least once. A handler that returns acknowledges; what it throws decides: `Retry`, `DeadLetter`,
 * `Discard`, or any other error, which is retried if the policy covers it, else a dead letter.
 *
 * ```ts
 * const subscriber = new Subscriber("amqp://guest:guest@localhost");
 * subscriber.handle("order.*", { name: "billing", concurrency: 32 }, async (event) => { … });
 * const running = await subscriber.start();
 * await running.stop();
 * ```
 */
export class Subscriber extends Life {
  /** The broker that it listens to. */
  readonly broker: Broker;
  readonly #owned: boolean;
  readonly #drainMs: number;
  readonly #registrations: Registration[] = [];
  readonly #middleware: Middleware[] = [];
  #running: Running | undefined;

  /** @param target a URL or a {@link Broker}; without one, the broker of the environment. */
  constructor(target?: string | Broker, options: SubscriberOptions = {}) {
    super();
    this.#drainMs = options.drainTimeout === undefined ? DRAIN_MS : toMs(options.drainTimeout, "drainTimeout");
    const { broker, owned } = brokerOf(target, options);
    this.broker = broker;
    this.#owned = owned;
  }

  /** Adds code around every handler; the first one added is the outermost. Before `start`. */
  use(middleware: Middleware): this {
    this.#middleware.push(middleware);
    return this;
  }

  /** Handles the events that match `bindingKeys`, once the subscriber is started. Throws what an option got wrong. */
  handle<T = unknown, Tx = unknown>(
    bindingKeys: string | readonly string[],
    options: HandleOptions<T> & { inbox: Inbox<Tx> },
    handler: InboxHandler<T, Tx>,
  ): this;
  handle<T = unknown>(bindingKeys: string | readonly string[], options: HandleOptions<T>, handler: Handler<T>): this;
  handle(
    bindingKeys: string | readonly string[],
    // biome-ignore lint/suspicious/noExplicitAny: what the overloads say
    options: HandleOptions<any>,
    // biome-ignore lint/suspicious/noExplicitAny: what the overloads say
    handler: (...values: any[]) => unknown,
  ): this {
    if (typeof options !== "object" || options === null) {
      throw new TypeError('handle() needs the subscription\'s name: handle("order.*", { name: "billing" }, handler)');
    }
    const { name, ...rest } = options;
    return this.register(handler, name, bindingKeys, rest as SubscriptionOptions<never>);
  }

  /** The same with the handler first: `register(handler, "billing", ["order.*"], { maxRetries: 3 })`. */
  register<T = unknown>(
    handler: Handler<T>,
    name: string,
    bindingKeys: string | readonly string[],
    options: SubscriptionOptions<T> = {},
  ): this {
    if (typeof handler !== "function") {
      throw new TypeError(`the handler of ${JSON.stringify(name)} must be a function, not ${typeof handler}`);
    }
    const native = nativeOptions(name, bindingKeys, options as SubscriptionOptions<never>);
    if (this.#registrations.some((one) => one.options.name === name)) {
      throw failure("SUBSCRIPTION_CONFLICT", "this subscriber has a handler for the subscription already", {
        field: "subscription",
        value: name,
        remedy: "bind several keys to one handler, or give the second one a name of its own",
      });
    }
    this.#registrations.push({
      options: native,
      handler: options.inbox === undefined ? handler : remembered(options.inbox, name, handler),
      schema: options.schema as Registration["schema"],
      redact: options.redact,
    });
    return this;
  }

  /**
   * The events of a subscription, to be iterated: asking for the next event acknowledges the current one if it is
   * unsettled; leaving the loop in any way releases it and all that were fetched.
   *
   * ```ts
   * for await (const event of subscriber.events("audit", ["#"])) {
   *   if (isBusy()) await event.retry({ seconds: 5 });
   * }
   * ```
   */
  events<T = unknown>(
    name: string,
    bindingKeys: string | readonly string[],
    options: Omit<SubscriptionOptions<T>, "concurrency" | "timeout"> & Abortable = {},
  ): DeliveryStream<T> {
    const { signal, ...rest } = options;
    const native = nativeOptions(name, bindingKeys, rest as SubscriptionOptions<never>);
    return iterate<T>(this.broker, native, { schema: options.schema, redact: options.redact, signal });
  }

  /**
   * Declares every subscription that has a handler and starts handling. If one cannot be declared, none is started and
   * its error is thrown. The process stays alive until it is stopped.
   */
  async start(options: StartOptions = {}): Promise<Running> {
    throwIfAborted(options.signal);
    if (this.#running !== undefined && !this.#running.stopped) {
      throw failure("INVALID_OPTION", "the subscriber runs already", { remedy: "stop it first" });
    }
    if (this.#registrations.length === 0) {
      throw failure("INVALID_OPTION", "the subscriber has no handler", {
        remedy: "add one with handle() before start()",
      });
    }
    const running = new Running(this.broker, this, this.#drainMs);
    const consumers = this.#registrations.map(
      (registration) => new Consumer(this.broker, registration, [...this.#middleware], running.listener),
    );
    this.#running = running;
    const hold = bridge();
    hold.hold();
    try {
      await abortable(running.begin(consumers), options.signal, () => void running.stop());
    } catch (error) {
      this.#running = undefined;
      await running.stop();
      throw error;
    } finally {
      hold.release();
    }
    if (options.handleSignals === true) running.handleSignals();
    return running;
  }

  /** Drains what was started; without a start it does nothing. See {@link Running.stop}. */
  async stop(options: Abortable & { drainTimeout?: Delay | undefined } = {}): Promise<number> {
    return (await this.#running?.stop(options)) ?? 0;
  }

  /** What each subscription is doing; nothing before `start`. See {@link Running.health}. */
  health(): SubscriptionHealth[] {
    return this.#running?.health() ?? [];
  }

  /** All counters and gauges of the broker handle. */
  metrics(): Metric[] {
    return this.broker.metrics();
  }

  /** Stops handing over events of this subscription, or of all. See {@link Running.pause}. */
  async pause(subscription?: string): Promise<void> {
    await this.#started().pause(subscription);
  }

  /** Goes on after a pause. */
  async resume(subscription?: string): Promise<void> {
    await this.#started().resume(subscription);
  }

  /** Stops, and closes the broker if it was made for this subscriber. */
  async close(): Promise<void> {
    await this.stop();
    if (this.#owned) await this.broker.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #started(): Running {
    if (this.#running !== undefined) return this.#running;
    throw failure("CLOSED", "the subscriber does not run", { remedy: "start it first" });
  }
}

/** The handler of an inbox, as every other. */
function remembered<T>(inbox: Inbox | MemoryInbox, name: string, handler: Handler<T>): Handler<T> {
  if (inbox instanceof MemoryInbox) {
    return (event, context) => inbox.run(name, event as DomainEvent, () => handler(event, context));
  }
  const inside = handler as unknown as InboxHandler<T, unknown>;
  return (event, context) => inbox.run(name, event as DomainEvent, (tx) => inside(event, tx, context));
}

export type { LifeEvents };

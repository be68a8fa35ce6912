import { type Abortable, abortable, throwIfAborted } from "./abort";
import { bridge } from "./bridge";
import { type Broker, type BrokerOptions, brokerOf } from "./broker";
import { type Delay, toMs } from "./delay";
import { failure } from "./error";
import { DomainEvent, type EventOptions, headersOf, toJson } from "./event";
import { compose, type Middleware } from "./middleware";
import { type NativePublishExtra, type NativePublisher, native } from "./native";
import { carry } from "./telemetry";

/** Proof that the broker has an event durably. */
export interface Receipt {
  /** The event's id. */
  id: string;
  /** Whether at least one subscription wanted it; `null` where that is not known (delayed events). */
  routed: boolean | null;
}

/** What one publish can ask for. */
export interface PublishOptions extends Abortable {
  /** Hands the event to subscriptions after this time. */
  delay?: Delay | undefined;
  /** Hands the event to subscriptions at this time; at once if it has passed. */
  deliverAt?: Date | undefined;
  /** Fails with `UNROUTABLE` if no subscription wants the event. Not together with a delay. */
  requireRoute?: boolean | undefined;
  /** Publishes to another exchange than the publisher's. */
  exchange?: string | undefined;
  /** Gives up after so many milliseconds instead of the publisher's. */
  timeoutMs?: number | undefined;
}

/** Options of a {@link Publisher}. */
export interface PublisherOptions extends BrokerOptions {
  /** Exchange to publish to, the namespace of binding keys. Default: `domain-events`. */
  exchange?: string | undefined;
  /** Gives up on an event after so many milliseconds (default 30,000). */
  publishTimeoutMs?: number | undefined;
  /** Largest body in bytes (default 1 MiB). */
  maxPayload?: number | undefined;
}

/** Events of one publisher that are handed to the engine and not confirmed; further calls wait for their turn. */
const MOST_IN_FLIGHT = 8192;

/**
 * Publishes events to one broker.
 *
 * When `publish` resolves, the broker has the event durably; otherwise it rejects. On a lost connection the unconfirmed
 * are sent again, in order, until the time-out: duplicates are possible, loss is not. Events are accepted in the order
 * of the calls.
 *
 * ```ts
 * const publisher = new Publisher("amqp://guest:guest@localhost");
 * await publisher.publish("user.registered", { userId: 7 }, { domainObjectId: "7" });
 * await publisher.close();
 * ```
 */
export class Publisher {
  /** The broker that it publishes to. */
  readonly broker: Broker;
  readonly #owned: boolean;
  readonly #options: PublisherOptions;
  readonly #middleware: Middleware<Receipt>[] = [];
  readonly #native: NativePublisher;
  #opening: Promise<void> | undefined;
  #opened = false;
  #closed = false;
  #inFlight = 0;
  /** Publishes that came before the connection and have not been handed over. */
  #early = 0;
  readonly #turns: (() => void)[] = [];

  /** @param target a URL or a {@link Broker}; without one, the broker of the environment. */
  constructor(target?: string | Broker, options: PublisherOptions = {}) {
    const { broker, owned } = brokerOf(target, options);
    this.broker = broker;
    this.#owned = owned;
    this.#options = options;
    const { Publisher: NativePublisher } = native();
    this.#native = new NativePublisher(broker.native);
  }

  /** Adds code around every publish; the first one added is the outermost. */
  use(middleware: Middleware<Receipt>): this {
    this.#middleware.push(middleware);
    return this;
  }

  /** Publishes one event and waits until the broker has it durably. Aborting ends the wait; the event may be published. */
  publish<T>(event: DomainEvent<T>, options?: PublishOptions): Promise<Receipt>;
  publish(routingKey: string, data: unknown, options?: PublishOptions & EventOptions): Promise<Receipt>;
  publish(first: DomainEvent | string, second?: unknown, third: PublishOptions & EventOptions = {}): Promise<Receipt> {
    try {
      if (first instanceof DomainEvent) return this.#publishEvent(first, (second ?? {}) as PublishOptions);
      if (typeof first !== "string") {
        throw new TypeError(
          `publish() needs a routing key such as "user.registered" or a DomainEvent, not ${typeof first}`,
        );
      }
      if (this.#middleware.length > 0) return this.#publishEvent(new DomainEvent(first, second, third), third);
      const json = toJson(second);
      const extra = extraOf(third, third, headersOf(third));
      return abortable(this.#send(first, json, third.domainObjectId, extra), third.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Publishes many events at once and waits for all: one result each, in order, as `Promise.allSettled` gives them. One
   * that fails does not stop the others.
   */
  publishBatch(events: Iterable<DomainEvent>, options: PublishOptions = {}): Promise<PromiseSettledResult<Receipt>[]> {
    return Promise.allSettled(Array.from(events, (event) => this.publish(event, options)));
  }

  /** A view of this publisher whose events are handed to subscriptions after `delay`. */
  delay(delay: Delay): Pick<Publisher, "publish" | "publishBatch"> {
    toMs(delay, "delay");
    return {
      publish: (first: DomainEvent | string, second?: unknown, third: PublishOptions & EventOptions = {}) =>
        first instanceof DomainEvent
          ? this.publish(first, { ...(second as PublishOptions), delay })
          : this.publish(first, second, { ...third, delay }),
      publishBatch: (events: Iterable<DomainEvent>, options: PublishOptions = {}) =>
        this.publishBatch(events, { ...options, delay }),
    };
  }

  /** Waits until everything that was published before the call is confirmed or has failed. */
  async flush(options: Abortable = {}): Promise<void> {
    await abortable(this.#ready(), options.signal);
    await abortable(
      bridge().call((op) => this.#native.flush(op)),
      options.signal,
    );
  }

  /** Takes no more events, waits for those under way, and closes the broker if it was made for this publisher. */
  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#opening !== undefined) await this.flush();
    this.#closed = true;
    this.#native.close();
    if (this.#owned) await this.broker.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #publishEvent(event: DomainEvent, options: PublishOptions): Promise<Receipt> {
    const send = (final: DomainEvent): Promise<Receipt> => {
      const { id, seconds, headers } = final.parts();
      const extra = extraOf({ ...options, id }, options, headers) ?? {};
      extra.timestamp = seconds;
      return this.#send(final.routingKey, final.json, final.domainObjectId ?? undefined, extra);
    };
    const sent = this.#middleware.length > 0 ? compose(this.#middleware, event, send) : send(event);
    return abortable(sent, options.signal);
  }

  #send(
    routingKey: string,
    json: string,
    domainObjectId: string | undefined,
    extra: NativePublishExtra | undefined,
  ): Promise<Receipt> {
    if (this.#opened && this.#early === 0 && this.#inFlight < MOST_IN_FLIGHT && this.#turns.length === 0) {
      this.#inFlight += 1;
      return this.#hand(routingKey, json, domainObjectId, extra);
    }
    return this.#queued().then(() => this.#hand(routingKey, json, domainObjectId, extra));
  }

  /** Waits for the connection and for a turn. */
  async #queued(): Promise<void> {
    // The order of the calls is the order of their turns, also of those that came before the connection.
    if (!this.#opened || this.#early > 0) {
      this.#early += 1;
      try {
        await this.#ready();
      } finally {
        this.#early -= 1;
      }
    }
    if (this.#inFlight < MOST_IN_FLIGHT && this.#turns.length === 0) {
      this.#inFlight += 1;
      return;
    }
    await new Promise<void>((turn) => this.#turns.push(turn));
  }

  #hand(
    routingKey: string,
    json: string,
    domainObjectId: string | undefined,
    extra: NativePublishExtra | undefined,
  ): Promise<Receipt> {
    const done = () => {
      const turn = this.#turns.shift();
      if (turn === undefined) this.#inFlight -= 1;
      else turn();
    };
    return bridge().call(
      (op) => this.#native.publish(op, routingKey, json, domainObjectId, extra),
      ([id, routed]: [string, boolean | null]) => {
        this.broker.onPublished?.(() => {
          const headers = extra?.headers === undefined ? null : JSON.parse(extra.headers);
          const seconds = extra?.timestamp ?? Date.now() / 1000;
          const objectId = domainObjectId ?? null;
          return DomainEvent.received({ routingKey, id, seconds, domainObjectId: objectId, retries: 0, headers, json });
        });
        return { id, routed };
      },
      done,
    );
  }

  #ready(): Promise<void> {
    if (this.#closed) return Promise.reject(failure("CLOSED", "the publisher is closed", { remedy: "make a new one" }));
    this.#opening ??= this.#open().catch((error) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }

  async #open(): Promise<void> {
    const { exchange, publishTimeoutMs, maxPayload } = this.#options;
    await this.broker.call((op) => this.#native.open(op, { exchange, publishTimeoutMs, maxPayload }));
    this.#opened = true;
  }
}

/** What has to be said beside routing key, data and object id; `undefined` if nothing has. */
function extraOf(
  event: EventOptions,
  options: PublishOptions,
  headers: Record<string, unknown> | null,
): NativePublishExtra | undefined {
  throwIfAborted(options.signal);
  const carried = carry(headers);
  const extra: NativePublishExtra = {};
  if (event.id !== undefined) extra.id = event.id;
  if (event.timestamp !== undefined) extra.timestamp = event.timestamp.getTime() / 1000;
  if (carried !== null) extra.headers = JSON.stringify(carried, refuseBytes);
  if (options.delay !== undefined) extra.delayMs = toMs(options.delay, "delay");
  if (options.deliverAt !== undefined) extra.deliverAt = options.deliverAt.getTime() / 1000;
  if (options.requireRoute !== undefined) extra.requireRoute = options.requireRoute;
  if (options.exchange !== undefined) extra.exchange = options.exchange;
  if (options.timeoutMs !== undefined) extra.timeoutMs = options.timeoutMs;
  return Object.keys(extra).length > 0 ? extra : undefined;
}

function refuseBytes(name: string, value: unknown): unknown {
  if (value instanceof Uint8Array) {
    throw failure("INVALID_HEADER", "bytes cannot be published as a header", {
      field: "headers",
      value: name,
      remedy: "write them as text (base64)",
    });
  }
  return value;
}

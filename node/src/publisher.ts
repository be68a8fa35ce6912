import { type Abortable, abortable, throwIfAborted } from "./abort";
import { type Broker, type BrokerOptions, brokerOf, type Metric } from "./broker";
import { type Delay, toMs } from "./delay";
import { failure } from "./error";
import { DomainEvent, type EventOptions, headersOf, toJson } from "./event";
import { compose, type Middleware } from "./middleware";
import { type HeaderValue, type NativePublishExtra, type NativePublisher, native } from "./native";
import { Line, lineOf, Outgoing } from "./outgoing";
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

/** What an event is made of on its way. */
interface Parts {
  routingKey: string;
  json: string;
  domainObjectId: string | null;
  id?: string | undefined;
  /** Seconds since the Unix epoch. */
  seconds?: number | undefined;
  headers: Record<string, HeaderValue> | null;
}

/** Told of an event that the broker has. */
type Told = ((id: string) => void) | undefined;

class Single extends Outgoing {
  constructor(
    text: string,
    readonly told: Told,
    readonly resolve: (receipt: Receipt) => void,
    readonly refused: (error: unknown) => void,
  ) {
    super(text);
  }

  protected accepted(id: string, routed: boolean | null): void {
    this.told?.(id);
    this.resolve({ id, routed });
  }
}

/** Results of a batch, in its order. */
class Batch {
  readonly #results: PromiseSettledResult<Receipt>[];
  readonly #resolve: (results: PromiseSettledResult<Receipt>[]) => void;
  #open: number;

  constructor(length: number, resolve: (results: PromiseSettledResult<Receipt>[]) => void) {
    this.#results = new Array(length);
    this.#open = length;
    this.#resolve = resolve;
    if (length === 0) resolve([]);
  }

  set(at: number, result: PromiseSettledResult<Receipt>): void {
    this.#results[at] = result;
    this.#open -= 1;
    if (this.#open === 0) this.#resolve(this.#results);
  }
}

class OneOfBatch extends Outgoing {
  constructor(
    text: string,
    readonly told: Told,
    readonly batch: Batch,
    readonly at: number,
  ) {
    super(text);
  }

  protected accepted(id: string, routed: boolean | null): void {
    this.told?.(id);
    this.batch.set(this.at, { status: "fulfilled", value: { id, routed } });
  }

  protected refused(reason: unknown): void {
    this.batch.set(this.at, { status: "rejected", reason });
  }
}

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
  readonly #line: Line;
  #opened = false;
  #closed = false;

  /** @param target a URL or a {@link Broker}; without one, the broker of the environment. */
  constructor(target?: string | Broker, options: PublisherOptions = {}) {
    const { broker, owned } = brokerOf(target, options);
    this.broker = broker;
    this.#owned = owned;
    this.#options = options;
    const { Publisher: NativePublisher } = native();
    this.#native = new NativePublisher(broker.native);
    this.#line = new Line(this.#native);
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
      const { id, domainObjectId = null, timestamp } = third;
      const seconds = timestamp === undefined ? undefined : timestamp.getTime() / 1000;
      const parts = { routingKey: first, json: toJson(second), domainObjectId, id, seconds, headers: headersOf(third) };
      return abortable(this.#send(parts, third), third.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Publishes many events at once and waits for all: one result each, in order, as `Promise.allSettled` gives them. One
   * that fails does not stop the others.
   */
  publishBatch(events: Iterable<DomainEvent>, options: PublishOptions = {}): Promise<PromiseSettledResult<Receipt>[]> {
    const all = Array.from(events);
    if (this.#middleware.length > 0 || options.signal !== undefined) {
      return Promise.allSettled(all.map((event) => this.publish(event, options)));
    }
    return new Promise((resolve) => {
      const batch = new Batch(all.length, resolve);
      for (const [at, event] of all.entries()) {
        try {
          const parts = partsOf(event);
          this.#accept(new OneOfBatch(textOf(parts, options), this.#told(parts), batch, at));
        } catch (reason) {
          batch.set(at, { status: "rejected", reason });
        }
      }
    });
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
    await abortable(this.#line.settled(), options.signal);
  }

  /** All counters and gauges of the broker handle. */
  metrics(): Metric[] {
    return this.broker.metrics();
  }

  /** Takes no more events, waits for those under way, and closes the broker if it was made for this publisher. */
  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#opening !== undefined) await this.flush();
    this.#closed = true;
    this.#line.fail(closed());
    this.#native.close();
    if (this.#owned) await this.broker.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #publishEvent(event: DomainEvent, options: PublishOptions): Promise<Receipt> {
    const send = (final: DomainEvent): Promise<Receipt> => this.#send(partsOf(final), options);
    const sent = this.#middleware.length > 0 ? compose(this.#middleware, event, send) : send(event);
    return abortable(sent, options.signal);
  }

  #send(parts: Parts, options: PublishOptions): Promise<Receipt> {
    const text = textOf(parts, options);
    return new Promise((resolve, reject) => {
      this.#accept(new Single(text, this.#told(parts), resolve, reject));
    });
  }

  #accept(event: Outgoing): void {
    if (this.#closed) throw closed();
    this.#line.add(event);
    // If the broker cannot be reached, the line fails with what is in it.
    if (!this.#opened) this.#ready().catch(() => {});
  }

  #told({ routingKey, json, domainObjectId, seconds = Date.now() / 1000, headers }: Parts): Told {
    const { onPublished } = this.broker;
    if (onPublished === undefined) return undefined;
    return (id) =>
      onPublished(() => DomainEvent.received({ routingKey, id, seconds, domainObjectId, retries: 0, headers, json }));
  }

  #ready(): Promise<void> {
    if (this.#closed) return Promise.reject(closed());
    this.#opening ??= this.#open().catch((error) => {
      this.#opening = undefined;
      this.#line.fail(error);
      throw error;
    });
    return this.#opening;
  }

  async #open(): Promise<void> {
    const { exchange, publishTimeoutMs, maxPayload } = this.#options;
    await this.broker.call((op) => this.#native.open(op, { exchange, publishTimeoutMs, maxPayload }));
    this.#opened = true;
    this.#line.open();
  }
}

function closed(): Error {
  return failure("CLOSED", "the publisher is closed", { remedy: "make a new one" });
}

function partsOf(event: DomainEvent): Parts {
  if (event instanceof DomainEvent) return event.parts();
  throw new TypeError(`publishBatch() needs DomainEvents, not ${typeof event}`);
}

/** The four lines of an event. */
function textOf(parts: Parts, options: PublishOptions): string {
  const { routingKey, json, domainObjectId } = parts;
  const extra = extraOf(parts, options);
  // White space between the tokens of foreign JSON: inside of them a line break is always escaped.
  const data = json.includes("\n") ? json.replaceAll("\n", " ") : json;
  return `${lineOf(routingKey)}\n${domainObjectId === null ? "" : lineOf(domainObjectId)}\n${extra}\n${data}\n`;
}

/** What has to be said beside routing key, data and object id, as JSON; empty if nothing has. */
function extraOf({ id, seconds, headers }: Parts, options: PublishOptions): string {
  throwIfAborted(options.signal);
  const carried = carry(headers);
  const { delay, deliverAt, requireRoute, exchange, timeoutMs } = options;
  const said = carried ?? id ?? seconds ?? delay ?? deliverAt ?? requireRoute ?? exchange ?? timeoutMs;
  // Most events say nothing more, and writing that down would be a good part of what publishing them costs here.
  if (said === undefined) return "";
  const extra: NativePublishExtra = {
    id,
    timestamp: finite("timestamp", seconds),
    headers: carried ?? undefined,
    delayMs: delay === undefined ? undefined : toMs(delay, "delay"),
    deliverAt: deliverAt === undefined ? undefined : finite("deliverAt", deliverAt.getTime() / 1000),
    requireRoute,
    exchange,
    timeoutMs: finite("timeoutMs", timeoutMs),
  };
  return JSON.stringify(extra, carried === null ? undefined : refuseBytes);
}

/** JSON has no other numbers: they would be left out in silence. */
function finite(field: string, number: number | undefined): number | undefined {
  if (number === undefined || Number.isFinite(number)) return number;
  throw failure("INVALID_OPTION", "this is not a number that means something here", {
    field,
    value: number,
    remedy: "use a valid Date, or a finite number",
  });
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

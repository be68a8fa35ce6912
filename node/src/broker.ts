import { type Abortable, abortable } from "./abort";
import { bridge, outside } from "./bridge";
import { failure } from "./error";
import type { DomainEvent } from "./event";
import { type Logger, listen, loggerOf } from "./logger";
import { type NativeBroker, native } from "./native";
import { type DeadLetterEntry, type DeadLettersOptions, entries, filterOf } from "./replay-filter";

/** Options of a {@link Broker}. */
export interface BrokerOptions {
  /** Where the engine's warnings go; `false` for nowhere. Default: the console. */
  logger?: Logger | false | undefined;
}

/** What a transport knows of a subscription. */
export interface SubscriptionInfo {
  name: string;
  /** Events that wait. */
  ready: number;
  /** Events handed out and not settled; `null` where the transport cannot tell. */
  inFlight: number | null;
  /** Dead letters. */
  dead: number;
}

/** One value of {@link Broker.metrics}. */
export interface Metric {
  /** `tidings_…`, the same in every language. */
  name: string;
  kind: "counter" | "gauge";
  /** The subscription it belongs to, if it belongs to one. */
  subscription: string | null;
  /** The value; seconds where the name says so. */
  value: number;
}

/** What the broker behind a handle can do. */
export interface Capabilities {
  /** Name of the transport: `memory`, `sqlite`, `amqp`. */
  name: string;
  maxDelayMs: number;
  /** Largest body in bytes. */
  maxPayload: number;
}

/**
 * One broker, reached when it is first needed: publishers, subscribers and dead letters over one set of connections.
 *
 * ```ts
 * const broker = new Broker("amqp://guest:guest@localhost");
 * const publisher = new Publisher(broker);
 * const subscriber = new Subscriber(broker);
 * ```
 */
export class Broker {
  /** @internal */
  readonly native: NativeBroker;
  /** @internal */
  readonly logger: Logger;
  /** @internal Told of every event that this process has published. */
  readonly onPublished: ((event: () => DomainEvent) => void) | undefined;
  readonly #url: string | undefined;
  readonly #unlisten: () => void;
  #connecting: Promise<void> | undefined;
  #connected = false;
  #closed = false;

  /**
   * @param url `sqlite:path.db`, `amqp://…`, `amqps://…`, `memory:`; without one `TIDINGS_BROKER_URL`, else
   * `sqlite:tidings.db` in the working directory.
   */
  constructor(url?: string, options?: BrokerOptions);
  /** @internal */
  constructor(url: undefined, options: BrokerOptions, onPublished: (event: () => DomainEvent) => void);
  constructor(url?: string, options: BrokerOptions = {}, onPublished?: (event: () => DomainEvent) => void) {
    if (url !== undefined && typeof url !== "string") {
      throw new TypeError(`the broker's URL must be a string such as "sqlite:tidings.db", not ${typeof url}`);
    }
    this.logger = loggerOf(options.logger);
    this.#url = url;
    this.onPublished = onPublished;
    const { Broker: NativeBroker } = native();
    this.native = new NativeBroker(bridge().native, onPublished !== undefined);
    this.#unlisten = listen(this.logger);
  }

  /** Reaches the broker; everything else does so by itself. Throws what is wrong with the URL or the connection. */
  connect(options: Abortable = {}): Promise<void> {
    return abortable(this.ready(), options.signal);
  }

  /** @internal Whether it was reached, so that nothing need be awaited. */
  get connected(): boolean {
    return this.#connected && !this.#closed;
  }

  /** @internal */
  ready(): Promise<void> {
    if (this.#closed)
      return Promise.reject(failure("CLOSED", "the broker handle is closed", { remedy: "make a new one" }));
    this.#connecting ??= outside(() => bridge().call<null>((op) => this.native.connect(op, this.#url))).then(
      () => {
        this.#connected = true;
      },
      (error) => {
        // The next call tries again.
        this.#connecting = undefined;
        throw error;
      },
    );
    return this.#connecting;
  }

  /** @internal Runs an operation on the connected broker. */
  async call<T>(start: (op: number) => void, convert?: (value: never) => T): Promise<T> {
    await this.ready();
    return bridge().call(start, convert);
  }

  /** Whether the broker answers right now: resolves if it does. */
  ping(options: Abortable = {}): Promise<void> {
    return abortable(
      this.call<void>(
        (op) => this.native.ping(op),
        () => undefined,
      ),
      options.signal,
    );
  }

  /** The subscriptions that the transport knows of. */
  subscriptions(options: Abortable = {}): Promise<SubscriptionInfo[]> {
    return abortable(
      this.call(
        (op) => this.native.subscriptions(op),
        (json: string) => JSON.parse(json) as SubscriptionInfo[],
      ),
      options.signal,
    );
  }

  /** Deletes a subscription with all its events and dead letters. `false` if there was none. */
  deleteSubscription(name: string): Promise<boolean> {
    return this.call(
      (op) => this.native.deleteSubscription(op, name),
      (existed: number) => existed === 1,
    );
  }

  /** The first dead letters of a subscription that are meant, oldest first. Looking changes nothing. */
  deadLetters(subscription: string, options: DeadLettersOptions = {}): Promise<DeadLetterEntry[]> {
    const { limit = 100, signal, ...filter } = options;
    return abortable(
      this.call((op) => this.native.deadLetters(op, subscription, filterOf(filter), limit), entries),
      signal,
    );
  }

  /** All counters and gauges of this handle. */
  metrics(): Metric[] {
    return JSON.parse(this.native.metrics()) as Metric[];
  }

  /** What the broker can do; reaches it first. */
  async capabilities(): Promise<Capabilities> {
    await this.ready();
    return JSON.parse(this.native.capabilities()) as Capabilities;
  }

  /** Lets go of the broker. Publishes under way are finished first; stop subscribers before. May be called twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#unlisten();
    // What could not be reached need not be let go of.
    await this.#connecting?.catch(() => {});
    await bridge().call((op) => this.native.close(op));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

let common: Broker | undefined;

/** The broker of the environment, one for the process, for functions that name none. */
export function defaultBroker(): Broker {
  common ??= new Broker();
  return common;
}

/** A broker for a URL, or the one given; `owned` tells whether to close it with its user. */
export function brokerOf(
  target: Broker | string | undefined,
  options?: BrokerOptions,
): { broker: Broker; owned: boolean } {
  if (target instanceof Broker) return { broker: target, owned: false };
  return { broker: new Broker(target, options), owned: true };
}

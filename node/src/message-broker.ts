// Publishing and subscribing by broker:topic. The rules are the core's: requests go there as JSON.

import { bridge } from "./bridge";
import { Broker } from "./broker";
import type { Handler } from "./consumer";
import type { HandlerContext } from "./context";
import { type Delay, toMs } from "./delay";
import { failure } from "./error";
import type { DomainEvent } from "./event";
import type { Logger } from "./logger";
import { type NativeCatalog, type NativeCatalogSettings, type NativeVerified, native } from "./native";
import type { Redact } from "./outcome";
import type { RetryPolicy } from "./policy";
import type { Running } from "./running";
import type { StandardSchema } from "./schema";
import { Subscriber } from "./subscriber";

/** An optional field that is passed and says nothing. */
export type Absent = Record<string, never>;

/** On whose behalf something is done. */
export interface ISession {
  /** The kind of session. */
  tag: string;
  /** For example a signed JWT. Never sent, logged or stored. */
  token: string;
}

/** One event to be published. */
export interface IMessageBrokerPublishInput {
  /** The environment: which of the broker's `envs` is meant. */
  env: string;
  /** `brokerTag:topicTag`. */
  event: string;
  product_tag: string;
  input: {
    /** The data. */
    message: unknown;
    headers?: Record<string, string> | undefined;
    /** Ordering key. */
    key?: string | undefined;
    /** Handed to subscriptions after this time. */
    delay?: Delay | undefined;
    /** De-duplication key of consumers' inboxes. */
    idempotencyKey?: string | undefined;
  };
  /** Tag of the cache in whose window the same message is sent once. */
  cache?: string | Absent | undefined;
  session?: ISession | Absent | string | undefined;
}

/** A topic to be subscribed to. */
export interface IMessageBrokerSubscribeInput {
  env: string;
  /** `brokerTag:topicTag`. */
  event: string;
  product_tag: string;
  input: {
    /** Gets the data. Returning acknowledges; what it throws decides, as in {@link Subscriber}. */
    // biome-ignore lint/suspicious/noExplicitAny: callers annotate what they expect, or validate with a schema
    callback: (message: any, context: MessageContext) => unknown;
    /** Processes of one group compete; each group gets its own copy. Default: all processes of the product compete. */
    group?: string | undefined;
    maxRetries?: number | undefined;
    retry?: RetryPolicy | undefined;
    concurrency?: number | undefined;
    timeout?: Delay | undefined;
    schema?: StandardSchema<unknown> | undefined;
    redact?: Redact | undefined;
  };
  session?: ISession | Absent | string | undefined;
}

/** The flat form of a publish. `product` and `env` may come from the {@link Tidings} constructor or the environment. */
export interface IProduceInput extends Omit<IMessageBrokerPublishInput["input"], "message"> {
  product?: string | undefined;
  env?: string | undefined;
  event: string;
  message: unknown;
  cache?: string | Absent | undefined;
  session?: ISession | Absent | string | undefined;
}

/** The flat form of a subscription. */
export interface IConsumeInput extends Omit<IMessageBrokerSubscribeInput["input"], never> {
  product?: string | undefined;
  env?: string | undefined;
  event: string;
  session?: ISession | Absent | string | undefined;
}

/** What a publish came to. */
export interface PublishResult {
  success: true;
  /** Names this call. */
  process_id: string;
  /** The event's id. */
  message_id: string;
  /** It was sent before, in the window of its cache; this is what that call got. */
  cached?: true;
  /** Says that the idempotency key is known. */
  error?: string;
}

/** A subscription that runs. It keeps the process alive. */
export interface SubscribeResult {
  success: true;
  process_id: string;
  /** Name of the subscription at the broker. */
  subscription: string;
  /** Stops handing over, waits for handlers that run, releases the rest. May be called twice. */
  unsubscribe(): Promise<void>;
  /** The same with a limit of its own; how many events were released unfinished. */
  drain(timeout?: Delay): Promise<number>;
}

/** What a callback is told beside the data. */
export interface MessageContext extends HandlerContext {
  /** The event's id. */
  readonly id: string;
  readonly headers: DomainEvent["headers"];
  /** How often it was tried before: 0 the first time. */
  readonly attempt: number;
  readonly event: DomainEvent;
}

/** Accepts a session and says whose it is (or nothing), or throws. */
export type SessionVerifier = (session: ISession) => string | undefined | Promise<string | undefined>;

/** @internal A catalog with what the program says about sessions and logs. */
export class CatalogClient {
  readonly #settings: NativeCatalogSettings;
  readonly #verifier: SessionVerifier | undefined;
  readonly logger: Logger | false | undefined;
  #native: NativeCatalog | undefined;

  constructor(settings: NativeCatalogSettings, verifier?: SessionVerifier, logger?: Logger | false) {
    this.#settings = settings;
    this.#verifier = verifier;
    this.logger = logger;
  }

  /** The addon is loaded with the first call. */
  get native(): NativeCatalog {
    const { Catalog } = native();
    this.#native ??= new Catalog(bridge().native, this.#settings);
    return this.#native;
  }

  /** Runs an operation of the core. */
  async call<T>(operation: string, request: unknown): Promise<T> {
    const text = json(request);
    return bridge().call(
      (op) => this.native.call(op, operation, text),
      (answer: string) => JSON.parse(answer) as T,
    );
  }

  /** Asks the program's own verifier; without one, or without a session, the core decides. */
  async verified(session: ISession | Absent | string | undefined): Promise<NativeVerified | undefined> {
    if (this.#verifier === undefined || session === undefined || session === null || session === "") return undefined;
    const { tag, token } = typeof session === "string" ? split(session) : (session as Partial<ISession>);
    if (tag === undefined && token === undefined) return undefined;
    try {
      const subject = await this.#verifier({ tag: String(tag), token: String(token) });
      return { tag: String(tag), subject: subject ?? undefined };
    } catch {
      // The verifier's own words may repeat the token.
      throw failure("SESSION_INVALID", "the session was rejected: the verifier did not accept it", {
        field: "session",
        value: tag,
        remedy: "start a new session; nothing was sent",
      });
    }
  }

  async close(): Promise<void> {
    const open = this.#native;
    if (open !== undefined) await bridge().call((op) => open.close(op));
  }
}

function split(session: string): ISession {
  const colon = session.indexOf(":");
  return colon < 0 ? { tag: session, token: "" } : { tag: session.slice(0, colon), token: session.slice(colon + 1) };
}

/** A request as the core reads it. */
export function json(request: unknown): string {
  const text = JSON.stringify(request);
  if (text === undefined) throw new TypeError("the request must be an object");
  return text;
}

/** A broker that is found by a topic's name. Closing it lets go of nothing: the connection is the catalog's. */
class TopicBroker extends Broker {
  readonly #find: () => Promise<string>;
  #found: Promise<string> | undefined;

  constructor(client: CatalogClient, request: string, verified: NativeVerified | undefined) {
    super(undefined, { logger: client.logger });
    this.#find = () =>
      bridge().call<string>(
        (op) => client.native.topic(op, this.native, request, verified),
        (name: string) => JSON.parse(name) as string,
      );
  }

  /** Name of the topic's subscription. */
  name(): Promise<string> {
    this.#found ??= this.#find();
    return this.#found;
  }

  override async ready(): Promise<void> {
    await this.name();
  }
}

/** Publishes and subscribes by `brokerTag:topicTag`. */
export class MessageBroker {
  readonly #client: () => CatalogClient;

  /** @internal */
  constructor(client: () => CatalogClient) {
    this.#client = client;
  }

  /**
   * Publishes an event and waits until its broker has it durably.
   *
   * An event that nobody wants yet waits for the topic's first subscriber. Throws what the catalog does not declare,
   * `SESSION_INVALID`, and `PUBLISH_FAILED` with the broker's error as its cause.
   */
  async publish(data: IMessageBrokerPublishInput): Promise<PublishResult> {
    const client = this.#client();
    const { delay, ...input } = data.input ?? {};
    const delayMs = delay === undefined ? undefined : Math.round(toMs(delay, "delay"));
    const request = json({ ...data, input: { ...input, delayMs } });
    const verified = await client.verified(data.session);
    return bridge().call(
      (op) => client.native.publish(op, request, verified),
      (answer: string) => JSON.parse(answer) as PublishResult,
    );
  }

  /**
   * Handles a topic's events until it is unsubscribed. Throws what the catalog does not declare, `SESSION_INVALID`, and
   * `SUBSCRIBE_FAILED` with the broker's error as its cause.
   */
  async subscribe(data: IMessageBrokerSubscribeInput): Promise<SubscribeResult> {
    const client = this.#client();
    const { callback, group, ...options } = data.input ?? ({} as IMessageBrokerSubscribeInput["input"]);
    if (typeof callback !== "function") {
      throw new TypeError(`input.callback must be a function, not ${typeof callback}`);
    }
    const { env, event, product_tag, session } = data;
    const verified = await client.verified(session);
    const request = json({ env, event, product_tag, session, input: { group } });
    const broker = new TopicBroker(client, request, verified);
    try {
      const name = await broker.name();
      const subscriber = new Subscriber(broker);
      const handler: Handler = (received, context) => callback(received.data, messageContext(received, context));
      // Where it is bound is the catalog's to say.
      subscriber.register(handler, name, "#", options);
      const running = await subscriber.start();
      return result(name, running, broker);
    } catch (error) {
      await broker.close();
      throw error;
    }
  }
}

function result(subscription: string, running: Running, broker: Broker): SubscribeResult {
  const drain = async (timeout?: Delay) => {
    const unfinished = await running.stop({ drainTimeout: timeout });
    await broker.close();
    return unfinished;
  };
  return {
    success: true,
    process_id: native().newId(),
    subscription,
    drain,
    unsubscribe: async () => {
      await drain();
    },
  };
}

function messageContext(event: DomainEvent, context: HandlerContext): MessageContext {
  return {
    id: event.id,
    headers: event.headers,
    attempt: event.retries,
    event,
    subscription: context.subscription,
    // Made when it is first asked for.
    get signal() {
      return context.signal;
    },
  };
}

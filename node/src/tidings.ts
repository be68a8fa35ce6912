import { BrokersService, Messages } from "./brokers-service";
import { failure } from "./error";
import { type Logger, loggerOf } from "./logger";
import {
  CatalogClient,
  type IConsumeInput,
  type IMessageBrokerPublishInput,
  type IMessageBrokerSubscribeInput,
  type IProduceInput,
  json,
  MessageBroker,
  type PublishResult,
  type SessionVerifier,
  type SubscribeResult,
} from "./message-broker";

/** Options of {@link Tidings}. */
export interface TidingsOptions {
  /** The catalog itself; wins over every file. */
  catalog?: object | undefined;
  /** The catalog's file; wins over `TIDINGS_CONFIG` and the files of the working directory. */
  configPath?: string | undefined;
  /** Product of calls that name none. */
  product?: string | undefined;
  /** Environment of calls that name none. */
  env?: string | undefined;
  /** Takes the place of the keys that the catalog declares for sessions. */
  sessionVerifier?: SessionVerifier | undefined;
  /** Where warnings go; `false` for nowhere. Default: the console. */
  logger?: Logger | false | undefined;
  /** Accepted for code that was written for Ductape, and not used. */
  accessKey?: string | undefined;
  workspace_id?: string | undefined;
  user_id?: string | undefined;
  private_key?: string | undefined;
}

const UNUSED = ["accessKey", "workspace_id", "user_id", "private_key"] as const;
let saidUnused = false;

/** Creates, updates and fetches what the catalog declares, in memory or in its file. */
interface Declarations {
  create(declaration: object): Promise<unknown>;
  /** Environments are merged by slug, topics by tag. */
  update(tag: string, patch: object): Promise<unknown>;
  /** Literal secrets are shown as `***`. */
  fetch(tag: string): Promise<unknown>;
}

/** What is declared for one product. */
export interface Product {
  readonly tag: string;
  /** Accepted for code that was written for Ductape: the product is known by its tag. */
  init(tag?: string): Promise<Product>;
  readonly messageBrokers: Declarations & {
    fetchAll(): Promise<unknown[]>;
    /** Topics by `brokerTag:topicTag`. */
    readonly topics: Declarations & { fetchAll(brokerTag: string): Promise<unknown[]> };
  };
}

/**
 * The catalog with everything that is called by its names. Nothing is read or connected before the first call.
 *
 * ```ts
 * const tidings = new Tidings({ product: "shop", env: "prd" });
 * await tidings.events.produce({ event: "orders:new-orders", message: { orderId: "12345" } });
 * ```
 */
export class Tidings {
  readonly #client: CatalogClient;
  /** `processor.messageBroker.publish` and `.subscribe`. */
  readonly processor: { readonly messageBroker: MessageBroker };
  /** The flat forms, and what is known of messages. */
  readonly events: {
    produce(data: IProduceInput): Promise<PublishResult>;
    consume(data: IConsumeInput): Promise<SubscribeResult>;
    readonly messages: Messages;
  };
  /** Looking back, replay, idempotency. */
  readonly brokers: BrokersService;

  constructor(options: TidingsOptions = {}) {
    const declared = options.catalog === undefined ? undefined : json(options.catalog);
    const { configPath: path, product, env, sessionVerifier, logger } = options;
    if (!saidUnused && UNUSED.some((name) => options[name] !== undefined)) {
      saidUnused = true;
      loggerOf(logger).warn(`tidings needs no account: ${UNUSED.join(", ")} are accepted and not used`);
    }
    this.#client = new CatalogClient({ declared, path, product, env }, sessionVerifier, logger);
    const client = () => this.#client;
    const messageBroker = new MessageBroker(client);
    this.processor = { messageBroker };
    this.brokers = new BrokersService(client, messageBroker);
    this.events = {
      produce: ({ product, env, event, cache, session, ...input }) =>
        // What is missing the catalog fills in.
        messageBroker.publish({
          product_tag: product,
          env,
          event,
          cache,
          session,
          input,
        } as IMessageBrokerPublishInput),
      consume: ({ product, env, event, session, ...input }) =>
        messageBroker.subscribe({ product_tag: product, env, event, session, input } as IMessageBrokerSubscribeInput),
      messages: new Messages(client),
    };
  }

  /** What is declared for a product; the one of the constructor, without a tag. */
  product(tag?: string): Product {
    const client = this.#client;
    const product = { product: tag };
    const declarations = (kind: string): Declarations => ({
      create: (declaration) => client.call(`${kind}.create`, { ...product, declaration }),
      update: (tag, declaration) => client.call(`${kind}.update`, { ...product, tag, declaration }),
      fetch: (tag) => client.call(`${kind}.fetch`, { ...product, tag }),
    });
    return {
      tag: tag ?? "",
      init: async (other) => {
        if (other === undefined && tag === undefined) throw failure("INVALID_OPTION", "no product is named");
        return this.product(other ?? tag);
      },
      messageBrokers: {
        ...declarations("messageBrokers"),
        fetchAll: () => client.call("messageBrokers.fetchAll", product),
        topics: {
          ...declarations("topics"),
          fetchAll: (brokerTag) => client.call("topics.fetchAll", { ...product, brokerTag }),
        },
      },
    };
  }

  /** Lets go of every broker. Unsubscribe before. */
  async close(): Promise<void> {
    await this.#client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The catalog of the process's environment: `tidings.processor.messageBroker.publish(…)`. */
export const tidings: Tidings = new Tidings();

/** Publishes and subscribes by the names of the process's catalog. */
export const messageBroker: MessageBroker = tidings.processor.messageBroker;

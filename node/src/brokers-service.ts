import type { CatalogClient, IMessageBrokerPublishInput, MessageBroker, PublishResult } from "./message-broker";

/** Which broker is asked, and about what. Times are milliseconds since the Unix epoch, or ISO 8601 texts. */
export interface BrokersServiceRequest {
  product?: string | undefined;
  env?: string | undefined;
  brokerTag?: string | undefined;
  topicTag?: string | undefined;
  topic?: string | undefined;
  consumerTag?: string | undefined;
  status?: string | undefined;
  category?: string | undefined;
  startDate?: string | number | undefined;
  endDate?: string | number | undefined;
  /** From 1. */
  page?: number | undefined;
  /** Rows of a page: 50 unless given, at most 1,000. */
  limit?: number | undefined;
}

/** An event as `getEvents` shows it. What a handler returned is not recorded. */
export interface BrokerEvent {
  id: string;
  status: "success" | "failed" | "pending" | "retrying" | "partial";
  topic: string | null;
  timestamp: string;
  request_data: unknown;
  response_data: null;
}

/** A message as `events.messages.query` shows it. */
export interface IBrokerMessage {
  message_id: string;
  idempotency_key: string | null;
  product_tag: string;
  env: string;
  broker_tag: string;
  topic_tag: string | null;
  event: string | null;
  message_decrypted: unknown;
  status: "pending" | "success" | "failed" | "partial";
  produced_at: string;
  session_tag: string | null;
  /** Subscriptions that are not done with it; those that have acknowledged it are not among them. */
  consumer_deliveries: {
    consumer_tag: string;
    status: "pending" | "failed";
    error: string | null;
    retry_count: number;
  }[];
}

/** A dead letter as `events.messages.getDeadLetters` shows it. */
export interface IBrokerDeadLetter {
  message_id: string;
  original_message: unknown;
  error: string;
  failed_at: string | null;
  retry_count: number;
  consumer_tag: string;
  can_retry: boolean;
}

/** A page of rows under the name `K`. */
export type Page<K extends string, T> = { [name in K]: T[] } & {
  total: number;
  page: number;
  limit: number;
  hasMore: boolean;
};

/**
 * Looks back, publishes again, keeps idempotency keys: served from what the broker really knows. What it cannot know is
 * an error that says so.
 *
 * ```ts
 * const service = new Tidings().brokers;
 * const stats = await service.getEventStats({ product: "shop", env: "prd", brokerTag: "orders" });
 * ```
 */
export class BrokersService {
  readonly #client: () => CatalogClient;
  readonly #messages: MessageBroker;

  /** @internal */
  constructor(client: () => CatalogClient, messages: MessageBroker) {
    this.#client = client;
    this.#messages = messages;
  }

  publish(data: IMessageBrokerPublishInput): Promise<PublishResult> {
    return this.#messages.publish(data);
  }

  /** Publishes once while the key is remembered: `idempotencyTtl` seconds, a day unless given. */
  publishIdempotent(
    data: IMessageBrokerPublishInput & { idempotencyKey: string; idempotencyTtl?: number | undefined },
  ): Promise<PublishResult> {
    return this.#client().call("publishIdempotent", data);
  }

  checkIdempotency(request: {
    product?: string;
    env?: string;
    idempotencyKey: string;
  }): Promise<{ exists: boolean; event_id?: string }> {
    return this.#client().call("checkIdempotency", request);
  }

  getEvents(request: BrokersServiceRequest): Promise<{ events: BrokerEvent[] }> {
    return this.#client().call("getEvents", request);
  }

  getEvent(request: { product?: string; env?: string; eventId: string }): Promise<BrokerEvent> {
    return this.#client().call("getEvent", request);
  }

  getEventStats(request: BrokersServiceRequest): Promise<{
    total_events: number;
    success_count: number;
    failed_count: number;
    pending_count: number;
    duplicate_count: number;
    dead_letter_count: number;
    events_by_topic: Record<string, number>;
  }> {
    return this.#client().call("getEventStats", request);
  }

  /** Publishes a copy with a new id. `force`: also if it was handled, and past inboxes that have seen it. */
  replayEvent(request: {
    product?: string;
    env?: string;
    eventId: string;
    force?: boolean;
  }): Promise<{ success: boolean; new_event_id?: string; process_id?: string; error?: string }> {
    return this.#client().call("replayEvent", request);
  }

  /** Puts dead letters back into the subscriptions that gave up on them. */
  reprocessDLQ(
    request: BrokersServiceRequest & { messageIds?: string[] },
  ): Promise<{ reprocessed_count: number; failed_count: number; event_ids: string[]; errors?: string[] }> {
    return this.#client().call("reprocessDLQ", request);
  }

  /** Whether the broker answers; the reason is in the result if it does not. */
  testConnection(
    request: BrokersServiceRequest,
  ): Promise<{ success: boolean; latency_ms?: number; code?: string; error?: string }> {
    return this.#client().call("testConnection", request);
  }

  getBrokers(request: { product?: string } = {}): Promise<unknown[]> {
    return this.#client().call("getBrokers", request);
  }

  getBroker(request: { product?: string; tag: string }): Promise<unknown> {
    return this.#client().call("getBroker", request);
  }

  getTopics(request: { product?: string; brokerTag: string }): Promise<unknown[]> {
    return this.#client().call("getTopics", request);
  }

  getTopic(request: { product?: string; tag: string }): Promise<unknown> {
    return this.#client().call("getTopic", request);
  }
}

/** `events.messages`: what is known of messages, dead letters and depths. */
export class Messages {
  readonly #client: () => CatalogClient;

  /** @internal */
  constructor(client: () => CatalogClient) {
    this.#client = client;
  }

  query(request: BrokersServiceRequest): Promise<Page<"messages", IBrokerMessage>> {
    return this.#client().call("events.messages.query", request);
  }

  getDeadLetters(request: BrokersServiceRequest): Promise<Page<"deadLetters", IBrokerDeadLetter>> {
    return this.#client().call("events.messages.getDeadLetters", request);
  }

  getStats(request: BrokersServiceRequest): Promise<{
    total: number;
    pending: number;
    success: number;
    failed: number;
    partial: number;
    consumer_count: number;
    dead_letter_count: number;
    messages_by_topic: Record<string, number>;
  }> {
    return this.#client().call("events.messages.getStats", request);
  }

  /** What waits in each subscription of the broker's topics. */
  getDepths(request: BrokersServiceRequest): Promise<{
    consumers: { consumer_tag: string; ready: number; in_flight: number | null; dead_letters: number }[];
  }> {
    return this.#client().call("events.messages.getDepths", request);
  }

  /** No transport records who published: rejects with `GET_EVENTS_FAILED`. */
  getProducers(request: BrokersServiceRequest): Promise<never> {
    return this.#client().call("events.messages.getProducers", request);
  }

  /** No transport records what each consumer has handled: rejects with `GET_EVENTS_FAILED`; `getDepths` has what waits. */
  getConsumers(request: BrokersServiceRequest): Promise<never> {
    return this.#client().call("events.messages.getConsumers", request);
  }

  /** Activity by day and hour is not recorded: rejects with `GET_EVENTS_FAILED`; `getStats` has what is. */
  getDashboard(request: BrokersServiceRequest): Promise<never> {
    return this.#client().call("events.messages.getDashboard", request);
  }
}

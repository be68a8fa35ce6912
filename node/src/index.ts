/// <reference lib="esnext.disposable" preserve="true" />

export type { Abortable, AbortSignalLike } from "./abort";
export { Broker, type BrokerOptions, type Capabilities, type Metric, type SubscriptionInfo } from "./broker";
export { BrokersService, type BrokersServiceRequest } from "./brokers-service";
export type { Handler, InboxHandler } from "./consumer";
export { currentEvent, type HandlerContext, type PlatformAbortSignal } from "./context";
export type { Delay } from "./delay";
export { Delivery } from "./delivery";
export * from "./error-classes";
export { DomainEvent, type EventOptions, type WireEvent } from "./event";
export type { DeliveryStream } from "./events";
export { Inbox, type MemoryClaim, MemoryInbox, type MemoryInboxOptions, type OpenTransaction } from "./inbox";
export { Life, type LifeEvents } from "./life";
export type { Logger } from "./logger";
export {
  type Absent,
  type IConsumeInput,
  type IMessageBrokerPublishInput,
  type IMessageBrokerSubscribeInput,
  type IProduceInput,
  type ISession,
  MessageBroker,
  type MessageContext,
  type PublishResult,
  type SubscribeResult,
} from "./message-broker";
export type { Middleware } from "./middleware";
export type { HeaderValue } from "./native";
export {
  type AddOptions,
  type FailedRow,
  Outbox,
  type OutboxEvent,
  type OutboxOptions,
  OutboxRelay,
  type OutboxStatus,
  type RelayHealth,
  type RelayOptions,
} from "./outbox";
export { DeadLetter, Discard, type Redact, Retry } from "./outcome";
export { type ErrorType, RetryPolicy, type RetryPolicyOptions } from "./policy";
export { Publisher, type PublisherOptions, type PublishOptions, type Receipt } from "./publisher";
export {
  type Decide,
  deadLetters,
  type OnBroker,
  type ReplayAction,
  type ReplayOptions,
  type ReplayReport,
  replayAll,
  replayEvent,
} from "./replay";
export type { DeadLetterEntry, DeadLetterFilter, DeadLettersOptions } from "./replay-filter";
export { Running, type SubscriptionHealth, type SubscriptionOrder } from "./running";
export type { SchemaIssue, SchemaResult, StandardSchema } from "./schema";
export { type HandleOptions, type StartOptions, Subscriber, type SubscriberOptions } from "./subscriber";
export type { OrderedOptions, SubscriptionOptions } from "./subscription-options";
export { messageBroker, Tidings, type TidingsOptions, tidings } from "./tidings";
export { TidingsError } from "./tidings-error";

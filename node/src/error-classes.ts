// Written by scripts/errors.mjs from tests/vectors/errors.json.

import { TidingsError } from "./tidings-error";

/** `INVALID_URL`: The broker URL cannot be understood, or has a parameter that does not exist. */
export class InvalidUrlError extends TidingsError {}

/** `UNSUPPORTED_TRANSPORT`: No transport of this build serves the URL's scheme. */
export class UnsupportedTransportError extends TidingsError {}

/** `UNSUPPORTED`: The transport cannot do what was asked of it (see its Capabilities). */
export class UnsupportedError extends TidingsError {}

/** `CONNECTION_FAILED`: The broker or store cannot be reached, or the connection was lost. */
export class ConnectionFailedError extends TidingsError {}

/** `ACCESS_REFUSED`: The broker refused the user, the password, the virtual host or the permission. */
export class AccessRefusedError extends TidingsError {}

/** `TLS_FAILED`: The TLS handshake failed: certificate, name or protocol. */
export class TlsFailedError extends TidingsError {}

/** `SUBSCRIPTION_CONFLICT`: A queue, exchange or subscription of this name exists with other settings. */
export class SubscriptionConflictError extends TidingsError {}

/** `SUBSCRIPTION_NOT_FOUND`: No subscription of this name exists. */
export class SubscriptionNotFoundError extends TidingsError {}

/** `INVALID_EVENT`: The event or its body does not follow the wire format. */
export class InvalidEventError extends TidingsError {}

/** `INVALID_ROUTING_KEY`: The routing key is empty, too long, or has wildcards. */
export class InvalidRoutingKeyError extends TidingsError {}

/** `INVALID_BINDING_KEY`: The binding key is empty, too long, or has a wildcard inside a word. */
export class InvalidBindingKeyError extends TidingsError {}

/** `INVALID_NAME`: A subscription's or exchange's name does not follow the rules. */
export class InvalidNameError extends TidingsError {}

/** `INVALID_HEADER`: A header's name or value cannot be carried. */
export class InvalidHeaderError extends TidingsError {}

/** `INVALID_DELAY`: A delay is negative or longer than the transport can keep. */
export class InvalidDelayError extends TidingsError {}

/** `INVALID_OPTION`: An option has a value that makes no sense, alone or beside another one. */
export class InvalidOptionError extends TidingsError {}

/** `HEADERS_TOO_LARGE`: The headers of one event exceed 64 KiB. */
export class HeadersTooLargeError extends TidingsError {}

/** `PAYLOAD_TOO_LARGE`: The body exceeds max_payload. */
export class PayloadTooLargeError extends TidingsError {}

/** `UNROUTABLE`: No subscription wanted the event and require_route was set. */
export class UnroutableError extends TidingsError {}

/** `REJECTED`: The broker answered that it did not take the event. */
export class RejectedError extends TidingsError {}

/** `TIMEOUT`: The time-out passed. See [Error::outcome_unknown]. */
export class TimeoutError extends TidingsError {}

/** `CLOSED`: The publisher, subscriber or broker handle was closed. */
export class ClosedError extends TidingsError {}

/** `STALE_DELIVERY`: The delivery is no longer ours: its connection or lease is gone and it will be delivered again. */
export class StaleDeliveryError extends TidingsError {}

/** `STORE_CORRUPT`: The file is not a database, or is damaged. */
export class StoreCorruptError extends TidingsError {}

/** `STORE_READ_ONLY`: The file or its folder cannot be written. */
export class StoreReadOnlyError extends TidingsError {}

/** `STORE_FULL`: The disk is full. */
export class StoreFullError extends TidingsError {}

/** `STORE_BUSY`: Another process held the file's lock for longer than the busy time-out. */
export class StoreBusyError extends TidingsError {}

/** `STORE_SHARED_IN_PROCESS`: The host's own SQLite has this file open in the same process, which would corrupt it. */
export class StoreSharedInProcessError extends TidingsError {}

/** `SCHEMA_TOO_NEW`: The store was written by a newer version of Tidings. */
export class SchemaTooNewError extends TidingsError {}

/** `FORKED_CLIENT`: The handle was made before a fork and is used in the child. */
export class ForkedClientError extends TidingsError {}

/** `INTERNAL`: A defect of Tidings itself. */
export class InternalError extends TidingsError {}

/** `CATALOG_INVALID`: The catalog's file cannot be read, or declares what makes no sense. */
export class CatalogInvalidError extends TidingsError {}

/** `CATALOG_CONFLICT`: The catalog has an entry of this tag with other content. */
export class CatalogConflictError extends TidingsError {}

/** `INVALID_EVENT_NAME`: The event's name is not of the form broker:topic. */
export class InvalidEventNameError extends TidingsError {}

/** `PRODUCT_NOT_FOUND`: The catalog declares products, and not this one. */
export class ProductNotFoundError extends TidingsError {}

/** `ENV_REQUIRED`: No environment was named. */
export class EnvRequiredError extends TidingsError {}

/** `BROKER_NOT_FOUND`: The catalog does not declare this broker. */
export class BrokerNotFoundError extends TidingsError {}

/** `BROKER_ENV_NOT_FOUND`: The broker is not declared for this environment. */
export class BrokerEnvNotFoundError extends TidingsError {}

/** `TOPIC_NOT_FOUND`: The broker lists its topics, and not this one. */
export class TopicNotFoundError extends TidingsError {}

/** `PROVIDER_UNSUPPORTED`: No transport of this build serves the provider that the catalog names. */
export class ProviderUnsupportedError extends TidingsError {}

/** `SECRET_NOT_FOUND`: An environment variable that the catalog refers to is not set. */
export class SecretNotFoundError extends TidingsError {}

/** `CACHE_NOT_FOUND`: The catalog does not declare this cache. */
export class CacheNotFoundError extends TidingsError {}

/** `SESSION_INVALID`: The session's token was rejected; nothing was sent. */
export class SessionInvalidError extends TidingsError {}

/** `PUBLISH_FAILED`: An event could not be published; the cause says why, and whether trying again can help. */
export class PublishFailedError extends TidingsError {}

/** `SUBSCRIBE_FAILED`: A subscription could not be opened; the cause says why, and whether trying again can help. */
export class SubscribeFailedError extends TidingsError {}

/** `GET_EVENTS_FAILED`: Events could not be listed or counted. */
export class GetEventsFailedError extends TidingsError {}

/** `GET_EVENT_FAILED`: An event could not be looked up. */
export class GetEventFailedError extends TidingsError {}

/** `REPLAY_EVENT_FAILED`: An event could not be published again. */
export class ReplayEventFailedError extends TidingsError {}

/** `REPROCESS_DLQ_FAILED`: Dead letters could not be put back. */
export class ReprocessDlqFailedError extends TidingsError {}

/** `CHECK_IDEMPOTENCY_FAILED`: An idempotency key could not be looked up. */
export class CheckIdempotencyFailedError extends TidingsError {}

/** `PUBLISH_IDEMPOTENT_FAILED`: An event with an idempotency key could not be published. */
export class PublishIdempotentFailedError extends TidingsError {}

/** `BROWSER_NOT_SUPPORTED`: The package was loaded in a browser, where no broker can be reached. */
export class BrowserNotSupportedError extends TidingsError {}

/** `BROKER_SERVICE_LOAD_FAILED`: The native part of the package could not be loaded. */
export class BrokerServiceLoadFailedError extends TidingsError {}

/** `NO_TRANSACTION`: An outbox or inbox was to write on a connection without an open transaction. */
export class NoTransactionError extends TidingsError {}

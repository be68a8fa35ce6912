"""The engine's errors: one class for each code of its table, the same codes in every language.

Written by `python/tools/errors.py` from `tests/vectors/errors.json`. Codes and classes are only ever added.
"""

from __future__ import annotations

import builtins

__all__ = [
    "BY_CODE",
    "AccessRefusedError",
    "BrokerEnvNotFoundError",
    "BrokerNotFoundError",
    "BrokerServiceLoadFailedError",
    "BrowserNotSupportedError",
    "CacheNotFoundError",
    "CatalogConflictError",
    "CatalogInvalidError",
    "CheckIdempotencyFailedError",
    "ClosedError",
    "ConnectionFailedError",
    "EnvRequiredError",
    "ForkedClientError",
    "GetEventFailedError",
    "GetEventsFailedError",
    "HeadersTooLargeError",
    "InternalError",
    "InvalidBindingKeyError",
    "InvalidDelayError",
    "InvalidEventError",
    "InvalidEventNameError",
    "InvalidHeaderError",
    "InvalidNameError",
    "InvalidOptionError",
    "InvalidRoutingKeyError",
    "InvalidUrlError",
    "NoTransactionError",
    "PayloadTooLargeError",
    "ProductNotFoundError",
    "ProviderUnsupportedError",
    "PublishFailedError",
    "PublishIdempotentFailedError",
    "RejectedError",
    "ReplayEventFailedError",
    "ReprocessDlqFailedError",
    "SchemaTooNewError",
    "SecretNotFoundError",
    "SessionInvalidError",
    "StaleDeliveryError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreSharedInProcessError",
    "SubscribeFailedError",
    "SubscriptionConflictError",
    "SubscriptionNotFoundError",
    "TidingsError",
    "TimeoutError",
    "TlsFailedError",
    "TopicNotFoundError",
    "UnroutableError",
    "UnsupportedError",
    "UnsupportedTransportError",
]


class TidingsError(Exception):
    """What every error of Tidings is.

    Attributes:
        code: The stable code, the same in every language: `"INVALID_ROUTING_KEY"`.
        retryable: Whether the same call can succeed later without being changed.
        message: What happened, in one sentence.
        field: Name of the argument or option at fault, if there is one.
        value: The value it had, shortened. Never a secret.
        remedy: What to do about it.
        outcome_unknown: Whether it may have taken effect all the same (a publish whose confirm never came).
        causes: What led to it, outermost first.
    """

    code: str = "INTERNAL"
    retryable: bool = False

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        value: str | None = None,
        remedy: str | None = None,
        outcome_unknown: bool = False,
        causes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.remedy = remedy
        self.outcome_unknown = outcome_unknown
        self.causes = causes

    def __str__(self) -> str:
        text = self.message
        if self.field is not None and self.value is not None:
            text += f" ({self.field} = {self.value!r})"
        if self.remedy:
            text += f"; {self.remedy}"
        if self.outcome_unknown:
            text += " [outcome unknown]"
        return f"{text} [{self.code}]"

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _from_engine,
            (self.code, self.message, self.field, self.value, self.remedy, self.outcome_unknown, list(self.causes)),
        )


class InvalidUrlError(TidingsError, ValueError):
    """The broker URL cannot be understood, or has a parameter that does not exist."""

    code = "INVALID_URL"
    retryable = False


class UnsupportedTransportError(TidingsError, ValueError):
    """No transport of this build serves the URL's scheme."""

    code = "UNSUPPORTED_TRANSPORT"
    retryable = False


class UnsupportedError(TidingsError, NotImplementedError):
    """The transport cannot do what was asked of it (see its Capabilities)."""

    code = "UNSUPPORTED"
    retryable = False


class ConnectionFailedError(TidingsError, ConnectionError):
    """The broker or store cannot be reached, or the connection was lost."""

    code = "CONNECTION_FAILED"
    retryable = True


class AccessRefusedError(TidingsError, PermissionError):
    """The broker refused the user, the password, the virtual host or the permission."""

    code = "ACCESS_REFUSED"
    retryable = False


class TlsFailedError(TidingsError, ConnectionError):
    """The TLS handshake failed: certificate, name or protocol."""

    code = "TLS_FAILED"
    retryable = False


class SubscriptionConflictError(TidingsError):
    """A queue, exchange or subscription of this name exists with other settings."""

    code = "SUBSCRIPTION_CONFLICT"
    retryable = False


class SubscriptionNotFoundError(TidingsError, LookupError):
    """No subscription of this name exists."""

    code = "SUBSCRIPTION_NOT_FOUND"
    retryable = False


class InvalidEventError(TidingsError, ValueError, TypeError):
    """The event or its body does not follow the wire format."""

    code = "INVALID_EVENT"
    retryable = False


class InvalidRoutingKeyError(TidingsError, ValueError):
    """The routing key is empty, too long, or has wildcards."""

    code = "INVALID_ROUTING_KEY"
    retryable = False


class InvalidBindingKeyError(TidingsError, ValueError):
    """The binding key is empty, too long, or has a wildcard inside a word."""

    code = "INVALID_BINDING_KEY"
    retryable = False


class InvalidNameError(TidingsError, ValueError):
    """A subscription's or exchange's name does not follow the rules."""

    code = "INVALID_NAME"
    retryable = False


class InvalidHeaderError(TidingsError, ValueError):
    """A header's name or value cannot be carried."""

    code = "INVALID_HEADER"
    retryable = False


class InvalidDelayError(TidingsError, ValueError):
    """A delay is negative or longer than the transport can keep."""

    code = "INVALID_DELAY"
    retryable = False


class InvalidOptionError(TidingsError, ValueError):
    """An option has a value that makes no sense, alone or beside another one."""

    code = "INVALID_OPTION"
    retryable = False


class HeadersTooLargeError(TidingsError, ValueError):
    """The headers of one event exceed 64 KiB."""

    code = "HEADERS_TOO_LARGE"
    retryable = False


class PayloadTooLargeError(TidingsError, ValueError):
    """The body exceeds max_payload."""

    code = "PAYLOAD_TOO_LARGE"
    retryable = False


class UnroutableError(TidingsError):
    """No subscription wanted the event and require_route was set."""

    code = "UNROUTABLE"
    retryable = False


class RejectedError(TidingsError):
    """The broker answered that it did not take the event."""

    code = "REJECTED"
    retryable = True


class TimeoutError(TidingsError, builtins.TimeoutError):
    """The time-out passed. See `outcome_unknown`."""

    code = "TIMEOUT"
    retryable = True


class ClosedError(TidingsError):
    """The publisher, subscriber or broker handle was closed."""

    code = "CLOSED"
    retryable = False


class StaleDeliveryError(TidingsError):
    """The delivery is no longer ours: its connection or lease is gone and it will be delivered again."""

    code = "STALE_DELIVERY"
    retryable = False


class StoreCorruptError(TidingsError):
    """The file is not a database, or is damaged."""

    code = "STORE_CORRUPT"
    retryable = False


class StoreReadOnlyError(TidingsError, PermissionError):
    """The file or its folder cannot be written."""

    code = "STORE_READ_ONLY"
    retryable = False


class StoreFullError(TidingsError):
    """The disk is full."""

    code = "STORE_FULL"
    retryable = True


class StoreBusyError(TidingsError):
    """Another process held the file's lock for longer than the busy time-out."""

    code = "STORE_BUSY"
    retryable = True


class StoreSharedInProcessError(TidingsError):
    """The host's own SQLite has this file open in the same process, which would corrupt it."""

    code = "STORE_SHARED_IN_PROCESS"
    retryable = False


class SchemaTooNewError(TidingsError):
    """The store was written by a newer version of Tidings."""

    code = "SCHEMA_TOO_NEW"
    retryable = False


class ForkedClientError(TidingsError):
    """The handle was made before a fork and is used in the child."""

    code = "FORKED_CLIENT"
    retryable = False


class InternalError(TidingsError):
    """A defect of Tidings itself."""

    code = "INTERNAL"
    retryable = False


class CatalogInvalidError(TidingsError):
    """The catalog's file cannot be read, or declares what makes no sense."""

    code = "CATALOG_INVALID"
    retryable = False


class CatalogConflictError(TidingsError):
    """The catalog has an entry of this tag with other content."""

    code = "CATALOG_CONFLICT"
    retryable = False


class InvalidEventNameError(TidingsError, ValueError):
    """The event's name is not of the form broker:topic."""

    code = "INVALID_EVENT_NAME"
    retryable = False


class ProductNotFoundError(TidingsError):
    """The catalog declares products, and not this one."""

    code = "PRODUCT_NOT_FOUND"
    retryable = False


class EnvRequiredError(TidingsError):
    """No environment was named."""

    code = "ENV_REQUIRED"
    retryable = False


class BrokerNotFoundError(TidingsError):
    """The catalog does not declare this broker."""

    code = "BROKER_NOT_FOUND"
    retryable = False


class BrokerEnvNotFoundError(TidingsError):
    """The broker is not declared for this environment."""

    code = "BROKER_ENV_NOT_FOUND"
    retryable = False


class TopicNotFoundError(TidingsError):
    """The broker lists its topics, and not this one."""

    code = "TOPIC_NOT_FOUND"
    retryable = False


class ProviderUnsupportedError(TidingsError):
    """No transport of this build serves the provider that the catalog names."""

    code = "PROVIDER_UNSUPPORTED"
    retryable = False


class SecretNotFoundError(TidingsError):
    """An environment variable that the catalog refers to is not set."""

    code = "SECRET_NOT_FOUND"
    retryable = False


class CacheNotFoundError(TidingsError):
    """The catalog does not declare this cache."""

    code = "CACHE_NOT_FOUND"
    retryable = False


class SessionInvalidError(TidingsError):
    """The session's token was rejected; nothing was sent."""

    code = "SESSION_INVALID"
    retryable = False


class PublishFailedError(TidingsError):
    """An event could not be published; the cause says why, and whether trying again can help."""

    code = "PUBLISH_FAILED"
    retryable = False


class SubscribeFailedError(TidingsError):
    """A subscription could not be opened; the cause says why, and whether trying again can help."""

    code = "SUBSCRIBE_FAILED"
    retryable = False


class GetEventsFailedError(TidingsError):
    """Events could not be listed or counted."""

    code = "GET_EVENTS_FAILED"
    retryable = False


class GetEventFailedError(TidingsError):
    """An event could not be looked up."""

    code = "GET_EVENT_FAILED"
    retryable = False


class ReplayEventFailedError(TidingsError):
    """An event could not be published again."""

    code = "REPLAY_EVENT_FAILED"
    retryable = False


class ReprocessDlqFailedError(TidingsError):
    """Dead letters could not be put back."""

    code = "REPROCESS_DLQ_FAILED"
    retryable = False


class CheckIdempotencyFailedError(TidingsError):
    """An idempotency key could not be looked up."""

    code = "CHECK_IDEMPOTENCY_FAILED"
    retryable = False


class PublishIdempotentFailedError(TidingsError):
    """An event with an idempotency key could not be published."""

    code = "PUBLISH_IDEMPOTENT_FAILED"
    retryable = False


class BrowserNotSupportedError(TidingsError):
    """The package was loaded in a browser, where no broker can be reached."""

    code = "BROWSER_NOT_SUPPORTED"
    retryable = False


class BrokerServiceLoadFailedError(TidingsError):
    """The native part of the package could not be loaded."""

    code = "BROKER_SERVICE_LOAD_FAILED"
    retryable = False


class NoTransactionError(TidingsError):
    """An outbox or inbox was to write on a connection without an open transaction."""

    code = "NO_TRANSACTION"
    retryable = False


BY_CODE: dict[str, type[TidingsError]] = {
    "INVALID_URL": InvalidUrlError,
    "UNSUPPORTED_TRANSPORT": UnsupportedTransportError,
    "UNSUPPORTED": UnsupportedError,
    "CONNECTION_FAILED": ConnectionFailedError,
    "ACCESS_REFUSED": AccessRefusedError,
    "TLS_FAILED": TlsFailedError,
    "SUBSCRIPTION_CONFLICT": SubscriptionConflictError,
    "SUBSCRIPTION_NOT_FOUND": SubscriptionNotFoundError,
    "INVALID_EVENT": InvalidEventError,
    "INVALID_ROUTING_KEY": InvalidRoutingKeyError,
    "INVALID_BINDING_KEY": InvalidBindingKeyError,
    "INVALID_NAME": InvalidNameError,
    "INVALID_HEADER": InvalidHeaderError,
    "INVALID_DELAY": InvalidDelayError,
    "INVALID_OPTION": InvalidOptionError,
    "HEADERS_TOO_LARGE": HeadersTooLargeError,
    "PAYLOAD_TOO_LARGE": PayloadTooLargeError,
    "UNROUTABLE": UnroutableError,
    "REJECTED": RejectedError,
    "TIMEOUT": TimeoutError,
    "CLOSED": ClosedError,
    "STALE_DELIVERY": StaleDeliveryError,
    "STORE_CORRUPT": StoreCorruptError,
    "STORE_READ_ONLY": StoreReadOnlyError,
    "STORE_FULL": StoreFullError,
    "STORE_BUSY": StoreBusyError,
    "STORE_SHARED_IN_PROCESS": StoreSharedInProcessError,
    "SCHEMA_TOO_NEW": SchemaTooNewError,
    "FORKED_CLIENT": ForkedClientError,
    "INTERNAL": InternalError,
    "CATALOG_INVALID": CatalogInvalidError,
    "CATALOG_CONFLICT": CatalogConflictError,
    "INVALID_EVENT_NAME": InvalidEventNameError,
    "PRODUCT_NOT_FOUND": ProductNotFoundError,
    "ENV_REQUIRED": EnvRequiredError,
    "BROKER_NOT_FOUND": BrokerNotFoundError,
    "BROKER_ENV_NOT_FOUND": BrokerEnvNotFoundError,
    "TOPIC_NOT_FOUND": TopicNotFoundError,
    "PROVIDER_UNSUPPORTED": ProviderUnsupportedError,
    "SECRET_NOT_FOUND": SecretNotFoundError,
    "CACHE_NOT_FOUND": CacheNotFoundError,
    "SESSION_INVALID": SessionInvalidError,
    "PUBLISH_FAILED": PublishFailedError,
    "SUBSCRIBE_FAILED": SubscribeFailedError,
    "GET_EVENTS_FAILED": GetEventsFailedError,
    "GET_EVENT_FAILED": GetEventFailedError,
    "REPLAY_EVENT_FAILED": ReplayEventFailedError,
    "REPROCESS_DLQ_FAILED": ReprocessDlqFailedError,
    "CHECK_IDEMPOTENCY_FAILED": CheckIdempotencyFailedError,
    "PUBLISH_IDEMPOTENT_FAILED": PublishIdempotentFailedError,
    "BROWSER_NOT_SUPPORTED": BrowserNotSupportedError,
    "BROKER_SERVICE_LOAD_FAILED": BrokerServiceLoadFailedError,
    "NO_TRANSACTION": NoTransactionError,
}


def _from_engine(
    code: str,
    message: str,
    field: str | None,
    value: str | None,
    remedy: str | None,
    outcome_unknown: bool,
    causes: list[str],
) -> TidingsError:
    kind = BY_CODE.get(code, TidingsError)
    return kind(message, field=field, value=value, remedy=remedy, outcome_unknown=outcome_unknown, causes=tuple(causes))

"""Publishing."""

from __future__ import annotations

from . import _tracing
from ._connection import DEFAULT, Connection, check_settings, shared_publisher
from ._native import DEFAULT_EXCHANGE, DomainEvent, Receipt

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import sys
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Any, overload

    from . import _native
    from .errors import TidingsError

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

    PublishNext = Callable[[DomainEvent[Any]], Receipt]
    PublishMiddleware = Callable[[DomainEvent[Any], PublishNext], Receipt]

else:

    def overload(function: Any) -> Any:
        """Says nothing at run time."""
        return function


__all__ = ["Publisher", "publish_domain_event"]

_EVENT_OPTIONS = ("domain_object_id", "uuid_string", "timestamp", "key", "tenant", "idempotency_key", "headers")


def make_event(event: DomainEvent[Any] | str, data: Any, options: dict[str, Any]) -> DomainEvent[Any]:
    """The event that `publish` was given, or was told to make."""
    if isinstance(event, DomainEvent):
        given = [name for name in _EVENT_OPTIONS if options.get(name) is not None]
        if given or data is not None:
            raise TypeError(f"the event is made already: {', '.join(given) or 'data'} belongs to DomainEvent(...)")
        return _tracing.inject(event)
    if not isinstance(event, str):
        raise TypeError(f"publish a DomainEvent, or a routing key and data, not {type(event).__qualname__}")
    return _tracing.inject(DomainEvent(event, data, **options))


def publish_domain_event(
    routing_key: str,
    data: Any,
    domain_object_id: str | None = None,
    uuid_string: str | None = None,
    timestamp: float | datetime | None = None,
    connection_settings: str | None = DEFAULT,
    *,
    exchange: str = DEFAULT_EXCHANGE,
    key: str | None = None,
    tenant: str | None = None,
    idempotency_key: str | None = None,
    headers: dict[str, Any] | None = None,
    delay: float | timedelta | None = None,
    deliver_at: float | datetime | None = None,
    require_route: bool = False,
    timeout: float | timedelta | None = None,
) -> DomainEvent[Any]:
    """Publishes one event and waits until the broker has it durably.

    The connection is made on the first call and kept, one for each process (a forked child makes its own).

    Args:
        routing_key: `<domain>.<event type>`.
        data: Anything with a JSON form (see `tidings.encoder`).
        domain_object_id: Identifier of the entity; also the ordering key, unless `key` is given.
        uuid_string: The event's id. Default: a new UUIDv7.
        timestamp: When it happened: seconds since the Unix epoch, or an aware datetime. Default: now.
        connection_settings: The broker's URL. Default: that of the environment, see `tidings.DEFAULT`. `None`: nothing
            is published.
        exchange: Namespace of binding keys.
        key: Ordering key.
        tenant: Tenant that the event belongs to.
        idempotency_key: De-duplication key. Default: the id.
        headers: Further headers.
        delay: Hands the event to subscriptions after this many seconds.
        deliver_at: Hands it to subscriptions at this time.
        require_route: Raises UnroutableError if no subscription wants it.
        timeout: Gives up after this many seconds. Default: 30.

    Returns:
        The event that was published.

    Raises:
        TidingsError: It was refused (`InvalidEventError`, `InvalidRoutingKeyError`, …), or not confirmed in time
            (`errors.TimeoutError`; the event may have arrived all the same).
    """
    options = {
        "domain_object_id": domain_object_id,
        "uuid_string": uuid_string,
        "timestamp": timestamp,
        "key": key,
        "tenant": tenant,
        "idempotency_key": idempotency_key,
        "headers": headers,
    }
    event = make_event(routing_key, data, options)
    url = check_settings(connection_settings, "topic")
    if url is None:
        _log_disabled("publish_domain_event")
        return event
    publisher = shared_publisher(url, exchange)
    if delay is None and deliver_at is None and timeout is None and not require_route:
        publisher.publish(event)
    else:
        publisher.publish(event, delay=delay, deliver_at=deliver_at, require_route=require_route, timeout=timeout)
    return event


class Publisher:
    """Publishes events to one broker. May be used from many threads at once.

    When `publish` returns, the broker has the event durably, or it raises. On a lost connection what is unconfirmed is
    sent again until the time-out: duplicates are possible, loss is not.

    >>> with Publisher("memory:") as publisher:
    ...     publisher.publish("user.registered", {"user_id": 7}).routed
    False

    Args:
        connection_settings: The broker's URL. Default: that of the environment, see `tidings.DEFAULT`. `None`: nothing
            is published.
        exchange: Namespace of binding keys.
        exchange_type: "topic".
        publish_timeout: Gives up on an event after this many seconds. Default: 30.
        max_payload: Largest body in bytes. Default: 1 MiB.
        middleware: Functions `(event, next)` around every publish, outermost first; `next(event)` returns the receipt.
    """

    def __init__(
        self,
        connection_settings: str | None = DEFAULT,
        exchange: str = DEFAULT_EXCHANGE,
        exchange_type: str = "topic",
        *,
        publish_timeout: float | timedelta | None = None,
        max_payload: int | None = None,
        middleware: Iterable[PublishMiddleware] = (),
    ) -> None:
        url = check_settings(connection_settings, exchange_type)
        self._connection = None if url is None else Connection(url)
        self._settings = (exchange, publish_timeout, max_payload)
        self._native: _native.Publisher | None = None
        self._middleware = tuple(middleware)

    def _publisher(self) -> _native.Publisher | None:
        if self._native is None and self._connection is not None:
            self._native = self._connection.broker().publisher(*self._settings)
        return self._native

    @overload
    def publish(
        self,
        event: DomainEvent[Any],
        *,
        delay: float | timedelta | None = None,
        deliver_at: float | datetime | None = None,
        require_route: bool = False,
        exchange: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Receipt: ...

    @overload
    def publish(
        self,
        event: str,
        data: Any = None,
        *,
        delay: float | timedelta | None = None,
        deliver_at: float | datetime | None = None,
        require_route: bool = False,
        exchange: str | None = None,
        timeout: float | timedelta | None = None,
        domain_object_id: str | None = None,
        uuid_string: str | None = None,
        timestamp: float | datetime | None = None,
        key: str | None = None,
        tenant: str | None = None,
        idempotency_key: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> Receipt: ...

    def publish(
        self,
        event: DomainEvent[Any] | str,
        data: Any = None,
        *,
        delay: float | timedelta | None = None,
        deliver_at: float | datetime | None = None,
        require_route: bool = False,
        exchange: str | None = None,
        timeout: float | timedelta | None = None,
        **options: Any,
    ) -> Receipt:
        """Publishes one event and waits until the broker has it durably.

        Give it a `DomainEvent`, or a routing key and data with the keywords of `DomainEvent`.

        Args:
            event: The event, or its routing key.
            data: Anything with a JSON form.
            delay: Hands the event to subscriptions after this many seconds.
            deliver_at: Hands it to subscriptions at this time: seconds since the Unix epoch, or an aware datetime.
            require_route: Raises UnroutableError if no subscription wants it.
            exchange: Another namespace than the publisher's.
            timeout: Gives up after this many seconds instead of `publish_timeout`.
            **options: Keywords of `DomainEvent`.

        Returns:
            `Receipt(id, routed)`; `routed` is False if no subscription wanted the event.
        """
        made = make_event(event, data, options)
        native = self._publisher()
        if native is None:
            _log_disabled("Publisher.publish")
            return _unsent(made)

        def send(event: DomainEvent[Any]) -> Receipt:
            return native.publish(
                event,
                delay=delay,
                deliver_at=deliver_at,
                require_route=require_route,
                exchange=exchange,
                timeout=timeout,
            )

        return self._around(send)(made)

    def publish_batch(self, events: Iterable[DomainEvent[Any]]) -> list[Receipt | TidingsError]:
        """Publishes many events at once, in order, and waits for all.

        One that fails does not stop the others: its place in the list has the exception.
        """
        batch = [_tracing.inject(event) for event in events]
        native = self._publisher()
        if native is None:
            _log_disabled("Publisher.publish_batch")
            return [_unsent(event) for event in batch]
        if self._middleware:
            return [self._one(native, event) for event in batch]
        return native.publish_batch(batch)

    def _one(self, native: _native.Publisher, event: DomainEvent[Any]) -> Receipt | TidingsError:
        from .errors import TidingsError

        try:
            return self._around(native.publish)(event)
        except TidingsError as error:
            return error

    def _around(self, send: PublishNext) -> PublishNext:
        for middleware in reversed(self._middleware):
            send = _link(middleware, send)
        return send

    def flush(self) -> None:
        """Waits until everything that other threads are publishing is confirmed or has failed."""
        if self._native is not None:
            self._native.flush()

    def metrics(self) -> list[tuple[str, str, str | None, float]]:
        """Counters: `(name, kind, subscription, value)`."""
        broker = self._connection.connected if self._connection is not None else None
        return broker.metrics() if broker is not None else []

    def close(self) -> None:
        """Waits for what is being published and lets go of the broker. May be called twice."""
        native, self._native = self._native, None
        if native is not None:
            native.flush()
        if self._connection is not None:
            self._connection.close()

    disconnect = close

    def __enter__(self) -> Self:
        self._publisher()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _link(middleware: PublishMiddleware, send: PublishNext) -> PublishNext:
    return lambda event: middleware(event, send)


def _unsent(event: DomainEvent[Any]) -> Receipt:
    return Receipt(event.id, None)


def _log_disabled(what: str) -> None:
    import logging

    logging.getLogger("tidings").debug("no broker is configured: %s does nothing", what)

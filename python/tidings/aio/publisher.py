"""Publishing in asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, overload

from .. import _native, _tracing
from .._connection import DEFAULT, check_settings, shared_key
from .._native import DEFAULT_EXCHANGE, DomainEvent, Receipt
from ..errors import TidingsError
from ..publisher import _log_disabled, _unsent, make_event
from ._loop import Connection, bridge, run

if TYPE_CHECKING:
    import sys
    from datetime import datetime, timedelta
    from types import TracebackType

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

PublishNext = Callable[[DomainEvent[Any]], Awaitable[Receipt]]
PublishMiddleware = Callable[[DomainEvent[Any], PublishNext], Awaitable[Receipt]]

__all__ = ["Publisher", "publish_domain_event"]

_shared: dict[tuple[int, str, str, str], Publisher] = {}


class Publisher:
    """Publishes events to one broker. Many tasks may publish at once; that is how it is fastest.

    The arguments are those of `tidings.Publisher`; middleware is `async def mw(event, next)`.
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
        self._turns: dict[asyncio.AbstractEventLoop, tuple[list[Any], list[DomainEvent[Any]]]] = {}

    async def _publisher(self) -> _native.Publisher | None:
        if self._native is None and self._connection is not None:
            broker = await self._connection.broker()
            if self._native is None:
                self._native = broker.publisher(*self._settings)
        return self._native

    @overload
    async def publish(
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
    async def publish(
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

    async def publish(
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
        """Publishes one event and waits until the broker has it durably, as `tidings.Publisher.publish`.

        Cancelling the wait does not withdraw the event.
        """
        made = make_event(event, data, options)
        native = self._native or await self._publisher()
        if native is None:
            _log_disabled("Publisher.publish")
            return _unsent(made)
        plain = delay is None and deliver_at is None and exchange is None and timeout is None and not require_route
        if plain and not self._middleware:
            return await self._with_others(native, made)
        settings: dict[str, Any] = {}
        if not plain:
            settings = {
                "delay": delay,
                "deliver_at": deliver_at,
                "require_route": require_route,
                "exchange": exchange,
                "timeout": timeout,
            }
        if not self._middleware:
            return await run(native.publish_soon, made, **settings)  # type: ignore[no-any-return]
        return await self._around(native, settings)(made)

    def _with_others(self, native: _native.Publisher, event: DomainEvent[Any]) -> asyncio.Future[Receipt]:
        """Publishes the event with all others that tasks publish in this turn of the loop."""
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = ([], [])
            loop.call_soon(self._send, native, loop)
        future: asyncio.Future[Receipt] = loop.create_future()
        turn[0].append(future)
        turn[1].append(event)
        return future

    def _send(self, native: _native.Publisher, loop: asyncio.AbstractEventLoop) -> None:
        futures, events = self._turns.pop(loop)
        try:
            native.publish_each_soon(bridge(), futures, events)
        except TidingsError as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    async def publish_batch(self, events: Iterable[DomainEvent[Any]]) -> list[Receipt | TidingsError]:
        """Publishes many events at once, in order, and waits for all.

        One that fails does not stop the others: its place in the list has the exception.
        """
        batch = [_tracing.inject(event) for event in events]
        native = await self._publisher()
        if native is None:
            _log_disabled("Publisher.publish_batch")
            return [_unsent(event) for event in batch]
        if not self._middleware:
            return await run(native.publish_batch_soon, batch)  # type: ignore[no-any-return]
        results: list[Receipt | TidingsError] = []
        for event in batch:
            try:
                results.append(await self._around(native, {})(event))
            except TidingsError as error:
                results.append(error)
        return results

    def _around(self, native: _native.Publisher, settings: dict[str, Any]) -> PublishNext:
        async def send(event: DomainEvent[Any]) -> Receipt:
            return await run(native.publish_soon, event, **settings)  # type: ignore[no-any-return]

        call: PublishNext = send
        for middleware in reversed(self._middleware):
            call = _link(middleware, call)
        return call

    async def flush(self) -> None:
        """Waits until everything that is being published is confirmed or has failed."""
        if self._native is not None:
            await run(self._native.flush_soon)

    def metrics(self) -> list[tuple[str, str, str | None, float]]:
        """Counters: `(name, kind, subscription, value)`."""
        broker = self._connection.connected if self._connection is not None else None
        return broker.metrics() if broker is not None else []

    async def close(self) -> None:
        """Waits for what is being published and lets go of the broker. May be called twice."""
        native, self._native = self._native, None
        if native is not None:
            await run(native.flush_soon)
        if self._connection is not None:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        await self._publisher()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _link(middleware: PublishMiddleware, call: PublishNext) -> PublishNext:
    return lambda event: middleware(event, call)


async def publish_domain_event(
    routing_key: str,
    data: Any,
    domain_object_id: str | None = None,
    uuid_string: str | None = None,
    timestamp: float | datetime | None = None,
    connection_settings: str | None = DEFAULT,
    *,
    exchange: str = DEFAULT_EXCHANGE,
    **options: Any,
) -> DomainEvent[Any]:
    """Publishes one event, as `tidings.publish_domain_event`; its further keywords are those of `Publisher.publish`."""
    of_event = {name: options.pop(name) for name in ("key", "tenant", "idempotency_key", "headers") if name in options}
    event = DomainEvent(routing_key, data, domain_object_id, uuid_string, timestamp, **of_event)
    url = check_settings(connection_settings, "topic")
    if url is None:
        _log_disabled("publish_domain_event")
        return event
    key = (*shared_key(url), exchange)
    publisher = _shared.get(key)
    if publisher is None:
        publisher = _shared.setdefault(key, Publisher(url, exchange))
    await publisher.publish(event, **options)
    return event

"""Iterating over the events of a subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import errors
from .._handler import InvalidDataError
from ._loop import run, take

if TYPE_CHECKING:
    import sys
    from datetime import timedelta
    from types import TracebackType

    from .._handler import Outcome, Registration
    from .._native import Deliveries, Delivery, DomainEvent
    from ._loop import Connection

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

__all__ = ["EventStream", "ReceivedEvent"]

T = TypeVar("T")


class ReceivedEvent(Generic[T]):
    """An event that an iteration has in hand, with what can be done with it. Its `event` is the `DomainEvent`.

    The methods settle it and return once that is durable; each raises StaleDeliveryError if the connection was lost
    meanwhile, in which case the event comes again, and RuntimeError if it was settled before.
    """

    def __init__(self, own: Deliveries, delivery: Delivery, event: DomainEvent[T]) -> None:
        self._own = own
        self._delivery = delivery
        #: The event.
        self.event = event

    @property
    def routing_key(self) -> str:
        """`<domain>.<event type>`"""
        return self.event.routing_key

    @property
    def data(self) -> T:
        """The data."""
        return self.event.data

    @property
    def id(self) -> str:
        """The event's id."""
        return self.event.id

    @property
    def key(self) -> str | None:
        """Ordering key."""
        return self.event.key

    @property
    def domain_object_id(self) -> str | None:
        """Identifier of the entity that the event is about."""
        return self.event.domain_object_id

    @property
    def timestamp(self) -> float:
        """When it happened, in seconds since the Unix epoch."""
        return self.event.timestamp

    @property
    def retries(self) -> int:
        """How often the subscription has tried it already."""
        return self.event.retries

    @property
    def headers(self) -> dict[str, Any]:
        """The headers, as a new dict."""
        return self.event.headers

    @property
    def settled(self) -> bool:
        """Whether it was settled."""
        return self._delivery.settled

    async def ack(self) -> None:
        """Handled."""
        await self._settle(None)

    async def retry(self, delay: float | timedelta | None = None, message: str | None = None) -> None:
        """Handle it again later, as raising `Retry` in a handler."""
        await self._settle(("retry", delay, message))

    async def fail(self, error: BaseException) -> None:
        """It failed with this error: retried if the policy covers it, else a dead letter."""
        import traceback

        types = [kind.__name__ for kind in type(error).__mro__ if kind not in (object, BaseException)]
        stack = "".join(traceback.format_exception(error))
        await self._settle(("fail", types, str(error) or types[0], stack, "error"))

    async def dead_letter(self, reason: str, message: str | None = None) -> None:
        """Give up on it at once."""
        await self._settle(("dead_letter", reason, message))

    async def discard(self) -> None:
        """Drop it, counted apart from the handled ones."""
        await self._settle(("discard",))

    async def release(self) -> None:
        """Give it back, no attempt spent."""
        await self._settle(("release",))

    async def _settle(self, outcome: Outcome) -> None:
        await run(self._own.settle_durably_soon, [(self._delivery, outcome)])

    def __repr__(self) -> str:
        return f"ReceivedEvent({self.event!r}, settled={self.settled})"


class EventStream:
    """The events of a subscription: `async for event in stream`.

    Every loop over it opens the subscription anew and lets go of it when it is left. As a context manager it waits
    until that is done.
    """

    def __init__(self, connection: Connection | None, registration: Registration) -> None:
        self._connection = connection
        self._registration = registration
        self._iterations: list[_Iteration] = []

    def __aiter__(self) -> _Iteration:
        return _Iteration(self._connection, self._registration)

    async def __aenter__(self) -> _Iteration:
        iteration = self.__aiter__()
        await iteration.open()
        self._iterations.append(iteration)
        return iteration

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._iterations.pop().aclose()


class _Iteration:
    """One loop over a stream. Dropped, it releases what it has: that is how leaving the loop does."""

    def __init__(self, connection: Connection | None, registration: Registration) -> None:
        self._connection = connection
        self._registration = registration
        self._own: Deliveries | None = None
        self._current: Delivery | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def open(self) -> Deliveries:
        """Declares the subscription and begins to fetch."""
        if self._connection is None:
            raise errors.ClosedError("no broker is configured, so no event will ever come")
        own = self._own
        if own is None:
            broker = await self._connection.broker()
            one = self._registration
            opened: Deliveries = await take(broker.deliveries_soon, one.name, one.binding_keys, one.settings)
            own = self._own = opened
        return own

    async def __anext__(self) -> ReceivedEvent[Any]:
        if self._closed:
            raise StopAsyncIteration
        own = self._own or await self.open()
        self._settle_current(None)
        while True:
            batch = own.try_next(1)
            if batch == []:
                batch = await take(own.next_soon, 1)
            if not batch:
                raise StopAsyncIteration
            current: Delivery = batch[0]
            self._current = current
            try:
                event = self._registration.prepare(current.event)
            except InvalidDataError as error:
                self._settle_current(self._registration.outcome_of(current.event, error))
                continue
            return ReceivedEvent(own, current, event)

    def _settle_current(self, outcome: Outcome) -> None:
        current, self._current = self._current, None
        if current is not None and self._own is not None and not current.settled:
            self._own.settle_soon([(current, outcome)])

    async def aclose(self) -> None:
        """Releases the current event, unless it is settled, and everything fetched, and waits until that is done."""
        self._closed = True
        self._settle_current(("release",))
        own, self._own = self._own, None
        if own is not None:
            await run(own.close_soon, 0)

    def __del__(self) -> None:
        own = self._own
        if own is None:
            return
        try:
            self._settle_current(("release",))
            # The event that the loop had in hand may live on, and would keep everything fetched from going back.
            own.abandon()
        except errors.ForkedClientError:
            return  # the parent's, and not ours to release

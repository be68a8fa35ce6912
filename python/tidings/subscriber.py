"""Subscribing."""

from __future__ import annotations

from . import errors
from ._connection import DEFAULT, Connection, check_settings
from ._handler import Registration, seconds
from ._native import DEFAULT_EXCHANGE, DomainEvent

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from typing import Any, Literal, TypeVar

    from ._consume import Consumption
    from ._native import Deliveries, RetryPolicy
    from .inbox import Inbox, MemoryInbox

    Handler = Callable[[DomainEvent[Any]], Any]
    Middleware = Callable[[DomainEvent[Any], Handler], Any]
    H = TypeVar("H", bound=Callable[..., Any])

__all__ = ["Subscriber"]

#: Settings of a subscription that the engine understands, with what `register` calls them.
SETTINGS = (
    "dead_letter",
    "durable",
    "exclusive",
    "auto_delete",
    "max_retries",
    "retry",
    "concurrency",
    "prefetch",
    "ordered",
    "on_retry",
    "on_dead",
    "hold_max",
    "max_parked",
    "partitions",
    "timeout",
    "queue_type",
    "compat",
    "exchange",
    "lease",
    "max_hold",
    "max_deliveries",
    "capture_stack",
    "redact",
)


class Subscriptions:
    """What handlers a subscriber has; the same for threads and for asyncio."""

    _asynchronous = False

    def __init__(
        self,
        connection_settings: str | None = DEFAULT,
        exchange: str = DEFAULT_EXCHANGE,
        exchange_type: str = "topic",
        *,
        drain_timeout: float | timedelta = 30.0,
        middleware: Iterable[Any] = (),
    ) -> None:
        self._url = check_settings(connection_settings, exchange_type)
        self._exchange = exchange
        self._drain_timeout = seconds(drain_timeout) or 0.0
        self._middleware = list(middleware)
        self._registrations: list[Registration] = []

    def register(
        self,
        handler: Callable[..., Any],
        name: str,
        binding_keys: Iterable[str] | str,
        dead_letter: bool = True,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        max_retries: int | None = None,
        *,
        retry: RetryPolicy | None = None,
        concurrency: int = 1,
        prefetch: int | None = None,
        ordered: bool = False,
        on_retry: Literal["wait", "pass"] | None = None,
        on_dead: Literal["park", "skip"] | None = None,
        hold_max: float | timedelta | None = None,
        max_parked: int | None = None,
        partitions: int | None = None,
        timeout: float | timedelta | None = None,
        model: Any = None,
        queue_type: Literal["quorum", "classic"] | None = None,
        compat: bool = False,
        exchange: str | None = None,
        lease: float | timedelta | None = None,
        max_hold: float | timedelta | None = None,
        max_deliveries: int | None = None,
        capture_stack: bool = True,
        redact: Callable[[str], str] | None = None,
        inbox: Inbox | MemoryInbox | None = None,
    ) -> None:
        """Handles the events of a subscription with `handler`, once the subscriber is started.

        A handler that returns acknowledges. `Retry`, `DeadLetter` and `Discard` raised say what becomes of the event;
        any other exception is retried if `retry` covers it, else it makes a dead letter.

        Args:
            handler: Called with the event.
            name: Name of the subscription: 1 to 200 characters of A-Z a-z 0-9 . _ : -. Processes that use the same name
                compete for its events.
            binding_keys: Which events it wants: `*` is exactly one word, `#` zero or more.
            dead_letter: Whether events that were given up on are kept (default) or dropped, counted.
            durable: RabbitMQ: the queue outlives the broker. False makes it a classic queue.
            exclusive: RabbitMQ: only this connection may use the queue. Makes it a classic queue.
            auto_delete: RabbitMQ: the queue goes with its last consumer. Makes it a classic queue.
            max_retries: Most retries of one event (default 0). Not beside `retry`, which has its own.
            retry: When errors are retried. Default: never.
            concurrency: Handlers that run at once (default 1, on the thread that called `start_consuming`).
            prefetch: Most events fetched and not settled. Default: 2 x concurrency, at least 16.
            ordered: The events of a key are handled in order, one at a time.
            on_retry: What the others of a key do while one waits for its retry: "wait" (default) or "pass".
            on_dead: What they do when one became a dead letter: "park" (wait until it is replayed) or "skip".
            hold_max: RabbitMQ, ordered: a key whose head is to be retried within this many seconds is held in memory,
                with a later retry it is parked in a queue of its own (default 60, at most 300).
            max_parked: RabbitMQ, ordered: most keys that are parked at a time (default 1000). Further ones are held,
                until the prefetch is used up and fetching stops; `health()` says so.
            partitions: Ordered: divides the keys into this many partitions, so that up to as many processes work at a
                time (default 1, at most 64). Only RabbitMQ needs it, and changes the number only while nothing is left
                in the partitions and no other process uses them; else starting is a SubscriptionConflictError.
            timeout: Seconds after which a run is a failure of type Timeout. A thread is not interrupted.
            model: A pydantic model, dataclass, TypedDict or callable that `event.data` is made with; data that do not
                fit are dead-lettered with reason "invalid-data".
            queue_type: RabbitMQ: "quorum" (default) or "classic".
            compat: RabbitMQ: declare exactly what domain-event-broker 3.0.2 declares.
            exchange: Another namespace of binding keys than the subscriber's.
            lease: SQLite: seconds that a claim lasts when its process dies (default 30).
            max_hold: Longest time in seconds that a fetched event waits for a handler (default 20 min).
            max_deliveries: Deliveries without an outcome after which an event is run alone (default 20).
            capture_stack: Whether dead letters and log lines have stacks.
            redact: Rewrites error texts before they are kept.
            inbox: The handler runs inside a transaction, `handler(event, tx)`, that also remembers the event: effects
                happen once. See `tidings.inbox.Inbox`; a `MemoryInbox` remembers without a database.

        Raises:
            InvalidNameError, InvalidBindingKeyError, InvalidOptionError: Whatever is wrong, before anything is sent.
            TypeError: The handler cannot be called with an event.
        """
        given = locals()
        settings = {setting: given[setting] for setting in SETTINGS}
        settings["exchange"] = exchange or self._exchange
        settings["inbox"] = inbox
        self._add(handler, name, binding_keys, model, settings)

    def handle(self, *binding_keys: str, name: str | None = None, **settings: Any) -> Callable[[H], H]:
        """Decorates a handler. The keywords are those of `register`; the name is by default the function's.

        >>> subscriber = Subscriber("memory:")
        >>> @subscriber.handle("order.*", name="billing", max_retries=3)
        ... def bill(event): ...
        """
        model = settings.pop("model", None)
        unknown = sorted(settings.keys() - {*SETTINGS, "inbox"})
        if unknown:
            raise TypeError(f"handle() has no setting {unknown[0]!r}")
        if len(binding_keys) == 1 and not isinstance(binding_keys[0], str):
            raise TypeError('say which events it wants: @subscriber.handle("order.*")')
        settings["exchange"] = settings.get("exchange") or self._exchange

        def register(handler: H) -> H:
            self._add(handler, name, binding_keys, model, settings)
            return handler

        return register

    def _add(
        self,
        handler: Any,
        name: str | None,
        binding_keys: Iterable[str] | str,
        model: Any,
        settings: dict[str, Any],
    ) -> None:
        one = Registration(handler, name, binding_keys, model, settings, asynchronous=self._asynchronous)
        if any(other.name == one.name for other in self._registrations):
            raise errors.SubscriptionConflictError(
                "this subscriber has a handler for the subscription already",
                field="name",
                value=one.name,
                remedy="bind several keys to one handler, or give the second one a name of its own",
            )
        self._registrations.append(one)

    def add_middleware(self, middleware: Any) -> None:
        """Adds a function `(event, next)` around every handler; the first one added is the outermost.

        It may change the event, look at what `next(event)` returns or raises, or not call it at all.
        """
        self._middleware.append(middleware)

    @property
    def subscriptions(self) -> list[str]:
        """Names of the subscriptions that have a handler."""
        return [one.name for one in self._registrations]

    def _prepared(self) -> list[Registration]:
        if not self._registrations:
            raise errors.InvalidOptionError(
                "the subscriber has no handler",
                field="handlers",
                value="0",
                remedy="add one with register() or @subscriber.handle()",
            )
        for one in self._registrations:
            one.wrap(self._middleware)
        return list(self._registrations)


class Subscriber(Subscriptions):
    """Handles the events of named subscriptions, on threads. For asyncio there is `tidings.aio.Subscriber`.

    Every subscription gets its own durable copy of the events it is bound to. Delivery is at least once.

    Args:
        connection_settings: The broker's URL. Default: that of the environment, see `tidings.DEFAULT`. `None`:
            `start_consuming` does nothing.
        exchange: Namespace of binding keys.
        exchange_type: "topic".
        drain_timeout: Seconds that handlers get to finish when it is stopped.
        middleware: Functions `(event, next)` around every handler, outermost first.
    """

    def __init__(
        self,
        connection_settings: str | None = DEFAULT,
        exchange: str = DEFAULT_EXCHANGE,
        exchange_type: str = "topic",
        *,
        drain_timeout: float | timedelta = 30.0,
        middleware: Iterable[Middleware] = (),
    ) -> None:
        super().__init__(
            connection_settings, exchange, exchange_type, drain_timeout=drain_timeout, middleware=middleware
        )
        self._connection = None if self._url is None else Connection(self._url)
        self._consumption: Consumption | None = None
        self._early: dict[str, Deliveries] = {}

    def declare(self, *names: str) -> None:
        """Declares these subscriptions, or all, so that they collect events from now on, without handling any."""
        if self._connection is not None:
            broker = self._connection.broker()
            for one in self._prepared():
                if not names or one.name in names:
                    broker.declare(one.name, one.binding_keys, one.settings)

    def _fetch_early(self, name: str) -> None:
        """Declares the subscription and holds its first events, for queues that do not outlive their consumer."""
        if self._connection is not None:
            broker = self._connection.broker()
            for one in self._prepared():
                if one.name == name:
                    self._early[name] = broker.deliveries(one.name, one.binding_keys, one.settings)

    def start_consuming(self, timeout: float | timedelta | None = None) -> None:
        """Handles events until `stop_consuming`, SIGTERM, Ctrl-C or the time-out; then drains.

        Handlers of concurrency 1 run on this thread, others on threads of their own. On the main thread SIGTERM makes
        it finish what is under way and return (unless the program has a handler for it), and Ctrl-C raises
        KeyboardInterrupt at once; what is unfinished is released.

        Args:
            timeout: Returns after this many seconds. Default: never.

        Raises:
            TidingsError: A subscription cannot be declared, or the broker is gone for good.
            SystemExit: A handler raised it. Its event counts as failed.
        """
        if self._connection is None:
            import logging

            logging.getLogger("tidings").debug("no broker is configured: start_consuming() does nothing")
            return
        from ._consume import Consumption

        if self._consumption is not None:
            raise RuntimeError("the subscriber consumes already, on another thread")
        consumption = Consumption(self._prepared(), self._drain_timeout)
        self._consumption = consumption
        try:
            consumption.open(self._connection.broker(), self._early)
            consumption.run(seconds(timeout))
        finally:
            self._consumption = None

    def stop_consuming(self) -> None:
        """Has `start_consuming` finish what is under way and return. May be called from any thread, or a handler."""
        consumption = self._consumption
        if consumption is not None:
            consumption.stop()

    def health(self) -> list[dict[str, Any]]:
        """What each subscription is doing; empty while it does not consume.

        Keys: `subscription`, `connected`, `consuming` (the broker knows a live consumer), `paused`, `draining`,
        `in_flight`, `buffered`, `recoveries`, `last_error`, `limited_by` (what holds it back: "prefetch", "suspect" or
        "max_parked"), `order` (ordered subscriptions: `owners`, `waiting_keys`, `parked_keys`, `dead_keys`,
        `oldest_waiting_seconds`; on RabbitMQ of what this process owns, on a file of the whole subscription, as it was
        when it was last asked for).
        """
        consumption = self._consumption
        return [one.health() for one in list(consumption.deliveries)] if consumption is not None else []

    def pause(self, name: str) -> None:
        """Stops handing events of this subscription to its handler; those fetched go back."""
        self._find(name).pause()

    def resume(self, name: str) -> None:
        """Goes on after a pause."""
        self._find(name).resume()

    def _find(self, name: str) -> Any:
        consumption = self._consumption
        if consumption is not None:
            for one, own in zip(consumption.registrations, list(consumption.deliveries), strict=False):
                if one.name == name:
                    return own
        raise errors.SubscriptionNotFoundError(
            "the subscriber is not consuming this subscription",
            field="name",
            value=name,
            remedy="pause and resume while start_consuming() runs",
        )

    def metrics(self) -> list[tuple[str, str, str | None, float]]:
        """Counters and gauges: `(name, kind, subscription, value)`. Names are those of the reference."""
        broker = self._connection.connected if self._connection is not None else None
        return broker.metrics() if broker is not None else []

    def close(self) -> None:
        """Stops consuming and lets go of the broker."""
        self.stop_consuming()
        while self._early:
            self._early.popitem()[1].close(0)
        if self._connection is not None:
            self._connection.close()

"""Subscribing in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import errors
from .._connection import DEFAULT
from .._handler import LONGEST_WAIT, RELEASE, Registration, log, seconds
from .._native import DEFAULT_EXCHANGE
from ..subscriber import SETTINGS, Subscriptions
from ._loop import Connection, run, start, take
from .stream import EventStream

if TYPE_CHECKING:
    import sys
    from collections.abc import Iterable
    from datetime import timedelta
    from types import TracebackType

    from .._handler import Outcome
    from .._native import Deliveries, Delivery, Running

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

__all__ = ["Subscriber"]


class Subscriber(Subscriptions):
    """Handles the events of named subscriptions with `async def` handlers, on the loop that starts it.

    The arguments, and those of `register` and `handle`, are those of `tidings.Subscriber`; handlers and middleware are
    `async def`. A handler that runs into its time-out is cancelled. No signals are handled unless asked for.
    """

    _asynchronous = True

    def __init__(
        self,
        connection_settings: str | None = DEFAULT,
        exchange: str = DEFAULT_EXCHANGE,
        exchange_type: str = "topic",
        *,
        drain_timeout: float | timedelta = 30.0,
        middleware: Iterable[Any] = (),
    ) -> None:
        super().__init__(
            connection_settings, exchange, exchange_type, drain_timeout=drain_timeout, middleware=middleware
        )
        self._connection = None if self._url is None else Connection(self._url)
        self._pumps: list[_Pump] = []
        self._stopped: asyncio.Event | None = None

    async def declare(self) -> None:
        """Declares every subscription, so that it collects events from now on, without handling any."""
        if self._connection is not None:
            broker = await self._connection.broker()
            for one in self._prepared():
                await asyncio.to_thread(broker.declare, one.name, one.binding_keys, one.settings)

    async def start(self) -> None:
        """Declares every subscription and begins to handle events in the background."""
        if self._connection is None:
            log.debug("no broker is configured: start() does nothing")
            return
        if self._pumps:
            raise RuntimeError("the subscriber consumes already")
        broker = await self._connection.broker()
        self._stopped = asyncio.Event()
        try:
            for one in self._prepared():
                own = await take(broker.deliveries_soon, one.name, one.binding_keys, one.settings)
                self._pumps.append(_Pump(one, own, self._stopped))
        except BaseException:
            await self.stop(0)
            raise
        for pump in self._pumps:
            pump.start()

    async def stop(self, timeout: float | timedelta | None = None) -> int:
        """Drains: handlers get `timeout` seconds (default: `drain_timeout`) to finish, then they are cancelled.

        Returns how many events were released unfinished. May be called twice.
        """
        pumps, self._pumps = self._pumps, []
        patience = self._drain_timeout if timeout is None else seconds(timeout) or 0.0
        if self._stopped is not None:
            self._stopped.set()
        return sum(await asyncio.gather(*(pump.stop(patience) for pump in pumps)))

    async def start_consuming(self, timeout: float | timedelta | None = None, *, handle_signals: bool = False) -> None:
        """Handles events until `stop_consuming`, the time-out or an error that ends a subscription; then drains.

        Cancelling it drains as well, at once: what is unfinished is cancelled and released.

        Args:
            timeout: Returns after this many seconds. Default: never.
            handle_signals: SIGINT and SIGTERM make it finish what is under way and return.
        """
        await self.start()
        stopped = self._stopped
        if stopped is None:
            return
        patience: float | None = 0.0
        with _Signals(stopped) if handle_signals else contextlib.nullcontext():
            try:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stopped.wait(), seconds(timeout))
                patience = None
            finally:
                failure = next((pump.failure for pump in self._pumps if pump.failure is not None), None)
                await self.stop(patience)
        if failure is not None:
            raise failure

    def stop_consuming(self) -> None:
        """Has `start_consuming` finish what is under way and return. To be called on its loop."""
        if self._stopped is not None:
            self._stopped.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def events(
        self, name: str, binding_keys: Iterable[str] | str, *, model: Any = None, **settings: Any
    ) -> EventStream:
        """The events of a subscription, to be iterated: `async for event in subscriber.events("audit", ["#"])`.

        Asking for the next event acknowledges the current one, unless it is settled. Leaving the loop in any way
        releases it and everything that was fetched. The keywords are those of `register`.
        """
        unknown = sorted(settings.keys() - set(SETTINGS))
        if unknown:
            raise TypeError(f"events() has no setting {unknown[0]!r}")
        settings["exchange"] = settings.get("exchange") or self._exchange
        one = Registration(_nobody, name, binding_keys, model, settings, asynchronous=True)
        return EventStream(self._connection, one)

    def health(self) -> list[dict[str, Any]]:
        """What each subscription is doing, as `tidings.Subscriber.health`."""
        return [pump.own.health() for pump in self._pumps]

    async def pause(self, name: str) -> None:
        """Stops handing events of this subscription to its handler; those fetched go back."""
        pump = self._find(name)
        pump.give_back()
        await run(pump.own.pause_soon)

    async def resume(self, name: str) -> None:
        """Goes on after a pause."""
        await run(self._find(name).own.resume_soon)

    def _find(self, name: str) -> _Pump:
        for pump in self._pumps:
            if pump.registration.name == name:
                return pump
        raise errors.SubscriptionNotFoundError(
            "the subscriber is not consuming this subscription",
            field="name",
            value=name,
            remedy="pause and resume while it is started",
        )

    def metrics(self) -> list[tuple[str, str, str | None, float]]:
        """Counters and gauges: `(name, kind, subscription, value)`."""
        broker = self._connection.connected if self._connection is not None else None
        return broker.metrics() if broker is not None else []

    async def close(self) -> None:
        """Drains and lets go of the broker."""
        await self.stop()
        if self._connection is not None:
            await self._connection.close()


async def _nobody(event: Any) -> None:
    """Stands for the body of the loop that iterates."""


class _Pump:
    """One subscription's events on their way to tasks of the loop, as many at once as its concurrency says."""

    def __init__(self, registration: Registration, own: Deliveries, stopped: asyncio.Event) -> None:
        self.registration = registration
        self.own = own
        self.failure: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._stopped = stopped
        self._free = registration.concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: deque[Delivery] = deque()
        self._size = 1
        self._most = registration.at_a_time
        self._done: list[tuple[Delivery, Outcome]] = []
        self._settling: asyncio.Handle | None = None
        self._seconds = 0.0
        self._fetched = 0.0
        self._room: asyncio.Future[None] | None = None
        self._fetching: Running | None = None
        self._pump: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._pump = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if self._free == 0:
                    self._room = self._loop.create_future()
                    await self._room
                    continue
                if not self._ready and not await self._fetch():
                    break
                while self._ready and self._free:
                    self._free -= 1
                    task = self._loop.create_task(self._handle(self._ready.popleft()))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                if self._free:
                    # Those that are begun get their turn before more are fetched.
                    await asyncio.sleep(0)
        except errors.TidingsError as error:
            self.failure = error
        finally:
            self._stopped.set()

    async def _fetch(self) -> bool:
        """Gets as many events as handlers have shown to be quick enough for; False once the subscription is closed."""
        self._settle()
        size = max(self._free, self._size)
        batch = self.own.try_next(size)
        if batch == []:
            self._size = 1
            future, self._fetching = start(self.own.next_soon, self._free)
            batch = await future
            self._fetching = None
        elif batch:
            # Twice as many the next time, unless the last ones took too long.
            took = self._loop.time() - self._fetched
            self._size = max(1, min(self._size * 2, int(self._size * LONGEST_WAIT / max(took, 1e-6)), self._most))
        self._fetched = self._loop.time()
        self._ready.extend(batch or ())
        return bool(batch)

    async def _handle(self, delivery: Delivery) -> None:
        outcome: Outcome = RELEASE
        began = perf_counter()
        try:
            outcome = await self._outcome(delivery)
        except SystemExit as error:
            outcome = self.registration.failed(delivery.event, error)
            raise
        finally:
            self._seconds += perf_counter() - began
            self._free += 1
            self._done.append((delivery, outcome))
            if self._settling is None:
                # With all others that end in this turn of the loop, or that are fetched already.
                later = self._loop.call_later
                self._settling = (
                    later(LONGEST_WAIT, self._settle) if self._ready else self._loop.call_soon(self._settle)
                )
            if self._room is not None and not self._room.done():
                self._room.set_result(None)

    async def _outcome(self, delivery: Delivery) -> Outcome:
        one, event = self.registration, delivery.event
        if one.timeout is None:
            return await one.run_async(event)
        limit = _Limit(self._loop, one.timeout)
        try:
            outcome = await one.run_async(event)
        except asyncio.CancelledError:
            if not limit.passed:
                raise
            outcome = None
        finally:
            limit.end()
        return one.timed_out(event) if limit.passed else outcome

    def _settle(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        batch, self._done = self._done, []
        took, self._seconds = self._seconds, 0.0
        if batch:
            self.own.settle_soon(batch)
            self.own.count_handled(len(batch), took)

    def give_back(self) -> None:
        """Releases what is fetched and not begun."""
        self._done.extend((delivery, RELEASE) for delivery in self._ready)
        self._ready.clear()
        self._settle()

    async def stop(self, patience: float) -> int:
        """Drains; how many were released unfinished."""
        if self._pump is not None:
            self._pump.cancel()
            if self._fetching is not None:
                self._fetching.cancel()
            await asyncio.wait([self._pump])
        self.give_back()
        unfinished, until = 0, self._loop.time() + patience
        if self._tasks and patience > 0:
            await asyncio.wait(set(self._tasks), timeout=patience)
        if self._tasks:
            unfinished = len(self._tasks)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=1.0)
        self._settle()
        # What is settled gets the rest of the time to be durable.
        released: int = await run(self.own.close_soon, max(0.0, until - self._loop.time()))
        unfinished += released
        if unfinished:
            log.warning("%s: %d events were released unfinished: others get them", self.registration.name, unfinished)
        return unfinished


class _Limit:
    """Cancels the task that made it after so many seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, length: float) -> None:
        self.passed = False
        self._task = asyncio.current_task()
        self._timer = loop.call_later(length, self._pass)

    def _pass(self) -> None:
        self.passed = True
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        self._timer.cancel()
        self._task = None


class _Signals:
    """SIGINT and SIGTERM set an event, as long as it is entered."""

    def __init__(self, stopped: asyncio.Event) -> None:
        self.stopped = stopped
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, self.stopped.set)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number, before in self.before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, before)

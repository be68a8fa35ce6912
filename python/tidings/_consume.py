"""A subscriber that consumes: threads that take events, handle them and say what came of it."""

from __future__ import annotations

import contextvars
import logging
import signal
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _exit, _native
from ._handler import LONGEST_WAIT, RELEASE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from ._handler import Outcome, Registration
    from ._native import Broker, Deliveries, Delivery, Group

log = logging.getLogger("tidings")


class Consumption:
    """One run of `start_consuming`.

    Handlers of concurrency 1 run on the thread that called, one event at a time over all of them; every other has as
    many threads of its own as its concurrency says.
    """

    def __init__(self, registrations: Sequence[Registration], drain_timeout: float) -> None:
        self.registrations = registrations
        self.deliveries: list[Deliveries] = []
        self.drain_timeout = drain_timeout
        self.failure: BaseException | None = None
        self.unfinished = 0
        self._deadline: float | None = None
        self._stopping = False
        self._groups: list[Group] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def open(self, broker: Broker, early: dict[str, Deliveries]) -> None:
        """Declares every subscription, unless it is being fetched already; if one cannot be, none stays open."""
        try:
            for one in self.registrations:
                own = early.pop(one.name, None)
                self.deliveries.append(own or broker.deliveries(one.name, one.binding_keys, one.settings))
        except BaseException:
            self._close(0.0)
            raise

    def run(self, timeout: float | None) -> None:
        """Consumes until it is stopped, time is up or something ends it; then drains."""
        self._deadline = None if timeout is None else monotonic() + timeout
        _exit.running.add(self)
        patience = self.drain_timeout
        try:
            with _Terminate(self):
                self._work_all()
        except BaseException:
            # Ctrl-C, or a handler on this thread that ends the process: at once.
            patience = 0.0
            raise
        finally:
            self.stop()
            _exit.running.discard(self)
            try:
                self._finish(patience)
            finally:
                self._ended.set()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Has every thread end after the event it is at. May be called anywhere, more than once."""
        self._stopping = True
        for group in list(self._groups):
            group.stop()

    def wait_ended(self, timeout: float) -> bool:
        """Waits until everything is given back."""
        return self._ended.wait(timeout)

    def _work_all(self) -> None:
        here = [
            (one, own) for one, own in zip(self.registrations, self.deliveries, strict=True) if one.concurrency == 1
        ]
        for one, own in zip(self.registrations, self.deliveries, strict=True):
            if one.concurrency > 1:
                group = self._group([own])
                for number in range(one.concurrency):
                    name = f"tidings-{one.name}-{number}"
                    # Daemons: a handler that hangs must not keep the process from ending.
                    thread = threading.Thread(target=self._thread, args=(group, one, own), name=name, daemon=True)
                    self._threads.append(thread)
                    thread.start()
        most = min((one.at_a_time for one, _ in here), default=1)
        worker = _Worker(self, self._group([own for _, own in here]), here, most)
        worker.work()

    def _group(self, members: list[Deliveries]) -> Group:
        group = _native.Group(members)
        self._groups.append(group)
        if self._stopping:
            group.stop()
        return group

    def _thread(self, group: Group, registration: Registration, own: Deliveries) -> None:
        try:
            _Worker(self, group, [(registration, own)], 1).work()
        except BaseException as error:
            # For the thread that called start_consuming to raise.
            if self.failure is None:
                self.failure = error
            self.stop()

    def _finish(self, patience: float) -> None:
        until = monotonic() + patience
        for thread in self._threads:
            # In slices: Ctrl-C while it drains is taken at once.
            while thread.is_alive() and thread is not threading.current_thread() and monotonic() < until:
                thread.join(min(0.05, max(0.0, until - monotonic())))
        self._close(max(0.0, until - monotonic()))

    def _close(self, patience: float) -> None:
        while self.deliveries:
            self.unfinished += self.deliveries.pop().close(patience)
        if self.unfinished:
            log.warning("%d events were released unfinished: others get them", self.unfinished)

    @property
    def time_left(self) -> float | None:
        """Seconds until `timeout`; None if there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    @property
    def over(self) -> bool:
        """Nothing new is to be begun."""
        return self._stopping or (self._deadline is not None and monotonic() >= self._deadline)


class _Worker:
    """One thread's loop."""

    def __init__(
        self,
        consumption: Consumption,
        group: Group,
        members: Sequence[tuple[Registration, Deliveries]],
        limit: int,
    ) -> None:
        self.consumption = consumption
        self.group = group
        self.members = members
        self.limit = limit
        self.done: list[tuple[Delivery, Outcome]] = []
        self.handled = [0] * len(members)
        self.seconds = [0.0] * len(members)

    def work(self) -> None:
        """Takes events and handles them, until the consumption is over."""
        size = 1
        consumption, group = self.consumption, self.group
        try:
            while not consumption.over:
                batch = group.try_next(size)
                if not batch:
                    self.settle()
                    batch = group.next(size, consumption.time_left)
                    size = 1
                began = monotonic()
                if not self._handle(batch):
                    return
                # So many that the last does not wait long behind the first.
                took = monotonic() - began
                quick = self.limit if took <= 0 else int(len(batch) * LONGEST_WAIT / took)
                size = max(1, min(size * 2, quick, self.limit))
        finally:
            self.settle()

    def _handle(self, batch: list[Delivery]) -> bool:
        """Handles a batch; what is not begun when the consumption is over goes back."""
        consumption, members, done = self.consumption, self.members, self.done
        before = settled = monotonic()
        for position, delivery in enumerate(batch):
            if consumption.over:
                done.extend((rest, RELEASE) for rest in batch[position:])
                return False
            index = delivery.index
            try:
                # A context of its own: what a handler sets is not there for the next one.
                outcome = contextvars.copy_context().run(members[index][0].run, delivery.event)
            except SystemExit as error:
                # The event has ended its handler, as any other exception would; and the process is to end.
                done.append((delivery, members[index][0].failed(delivery.event, error)))
                done.extend((rest, RELEASE) for rest in batch[position + 1 :])
                raise
            except BaseException:
                done.extend((rest, RELEASE) for rest in batch[position:])
                raise
            now = monotonic()
            self.handled[index] += 1
            self.seconds[index] += now - before
            done.append((delivery, outcome))
            before = now
            if now - settled > LONGEST_WAIT:
                self.settle()
                before = settled = monotonic()
        return True

    def settle(self) -> None:
        """Tells the engine what came of the events that are done."""
        if not self.done:
            return
        batch, self.done[:] = list(self.done), []
        self.group.settle_soon(batch)
        for index, (_, own) in enumerate(self.members):
            if self.handled[index]:
                own.count_handled(self.handled[index], self.seconds[index])
                self.handled[index], self.seconds[index] = 0, 0.0


class _Terminate:
    """On the main thread, SIGTERM drains, unless the program has a handler for it."""

    def __init__(self, consumption: Consumption) -> None:
        self.consumption = consumption
        self.before: Any = None
        self.installed = False

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self.before = signal.getsignal(signal.SIGTERM)
        if self.before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)
            self.installed = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        log.info("SIGTERM: finishing what is under way")
        self.consumption.stop()

    def __exit__(self, *_: object) -> None:
        if self.installed:
            signal.signal(signal.SIGTERM, self.before)

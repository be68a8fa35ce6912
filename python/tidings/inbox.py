"""The inbox: effects once, although an event may be delivered again.

    inbox = Inbox(pool.connection)        # whatever opens a transaction of yours

    @subscriber.handle("order.*", name="billing", inbox=inbox)
    def bill(event, connection):
        connection.execute("INSERT INTO bill …")

The claim is a row that the handler's own transaction writes, so effects and memory commit together. A redelivery finds
it and is acknowledged without the handler.

Handlers without a database have `MemoryInbox`, which remembers for a time and within its process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from ._handler import StoreFailed
from ._native import InboxRest, InboxWriter, MemoryClaim, MemoryClaims
from .outbox._drivers import Driver, recognise

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import timedelta

    from ._native import DomainEvent

    Steps = Generator[Callable[[], Any], Any, Any]

__all__ = ["Inbox", "MemoryClaim", "MemoryInbox"]

log = logging.getLogger("tidings")


class Inbox:
    """Remembers which events a subscription has processed, in the handler's own transaction.

    Args:
        open_tx: Returns a context manager (an asynchronous one for `tidings.aio`) that opens a transaction, commits it
            at its end and rolls back on an exception: `engine.begin`, `sessionmaker.begin`, `transaction.atomic`,
            psycopg's `pool.connection`. What it gives is the handler's second argument; where it gives nothing, as
            Django's, Django's default connection is meant.
        table: Name of the table, or `schema.table`.

    A handler that raises, whatever it raises, rolls back. Where `open_tx`, the claim or the commit fails, the handler
    rests with growing pauses (0.1 s to 30 s) and the event goes back to the queue: no attempt is spent.
    """

    arguments = 2
    """What the handler is called with: the event and the transaction."""

    def __init__(self, open_tx: Callable[[], Any] | None = None, *, table: str = "tidings_inbox") -> None:
        self._open = open_tx
        self._table = table
        self._writers: dict[str, InboxWriter] = {}
        self._resting = InboxRest()

    @staticmethod
    def schema(dialect: str, table: str = "tidings_inbox") -> str:
        """The table as SQL: `postgres`, `mysql` or `sqlite`."""
        return InboxWriter(dialect, table).schema()

    def claim(self, tx: Any, event: DomainEvent[Any], subscription: str) -> bool | Awaitable[bool]:
        """Claims the event in the transaction `tx`, for those who open their own.

        True: it is new, go on. False: `subscription` has processed it, acknowledge it without doing anything. On an
        asynchronous connection the result must be awaited. The key is the event's idempotency key, else its id, within
        its tenant.

        Raises:
            NoTransactionError: The connection would commit the claim by itself.
            InvalidHeaderError: Key or tenant have more than 255 bytes.
        """
        driver = _driver(tx)
        driver.check(assume_transaction=False)
        statement = self._writer(driver).claim(driver.style, subscription, event)
        if driver.asynchronous:
            return _claimed(driver, statement)
        return driver.run(statement) == 1

    def forget(self, tx: Any, age: float | timedelta = 7 * 86400.0, limit: int = 1000) -> int | Awaitable[int]:
        """Forgets up to `limit` events that were processed more than `age` seconds ago. Returns how many."""
        driver = _driver(tx)
        statement = self._writer(driver).forget(driver.style, age, limit)
        return driver.run_async(statement) if driver.asynchronous else driver.run(statement)

    def around(self, handler: Any, subscription: str, *, asynchronous: bool) -> Any:
        """The handler inside a transaction with its claim."""
        opening = self._open
        if opening is None:
            raise TypeError("the inbox opens no transactions: Inbox(open_tx)")
        if asynchronous:
            return lambda event: _run_async(self._steps(_ASYNC, opening, handler, subscription, event))
        return lambda event: _run(self._steps(_SYNC, opening, handler, subscription, event))

    def _writer(self, driver: Driver) -> InboxWriter:
        writer = self._writers.get(driver.dialect)
        if writer is None:
            writer = self._writers[driver.dialect] = InboxWriter(driver.dialect, self._table)
        return writer

    def _steps(
        self, way: _Way, opening: Callable[[], Any], handler: Any, subscription: str, event: DomainEvent[Any]
    ) -> Steps:
        """A handler in its transaction: calls that are to be made one after the other."""
        try:
            manager = opening()
            tx = yield getattr(manager, way.enter)
        except Exception as error:
            raise (yield from self._rest(way, "opening a transaction", error)) from error
        try:
            claimed = yield lambda: self.claim(tx, event, subscription)
        except Exception as error:
            yield from _roll_back(way, manager, error)
            raise (yield from self._rest(way, "claiming an event", error)) from error
        result = None
        if claimed:
            try:
                result = yield lambda: handler(event, tx)
            except BaseException as error:
                yield from _roll_back(way, manager, error)
                raise
        try:
            yield lambda: getattr(manager, way.exit)(None, None, None)
        except Exception as error:
            raise (yield from self._rest(way, "committing", error)) from error
        self._resting.worked()
        return result

    def _rest(self, way: _Way, doing: str, error: Exception) -> Steps:
        pause = self._resting.failed()
        log.warning("the inbox's database failed while %s (%s), trying again in %.1f s", doing, error, pause)
        yield lambda: way.sleep(pause)
        return StoreFailed(doing)


class MemoryInbox:
    """Remembers in this process what a subscription has processed, for a time: for handlers without a database.

    Args:
        keep: How long it remembers, in seconds or as a timedelta. At most a million events are remembered.
        lease: How long a claim lasts that nobody renews. A handler's claim is renewed for as long as it runs.

    As `inbox=` of a subscription it changes nothing about the handler, which is `handler(event)`. An event is claimed
    before it, completed when it returns and released when it raises. What was processed is acknowledged without the
    handler; what somebody else is at goes back to the queue after a pause, no attempt spent. A process that ends
    forgets everything, and every process has a memory of its own: what must never be repeated needs `Inbox`.

        subscriber.register(send_mail, "mails", ["order.*"], inbox=MemoryInbox())
    """

    arguments = 1
    """What the handler is called with: the event."""

    def __init__(self, keep: float | timedelta = 3600.0, *, lease: float | timedelta = 30.0) -> None:
        self._claims = MemoryClaims(keep, lease)

    def claim(self, event: DomainEvent[Any], subscription: str) -> MemoryClaim | None:
        """Claims the event, for those who run their own: None if `subscription` has processed it.

        `complete()` the claim on success, `release()` it on failure, `renew()` it before its lease ends: each of the
        first and the last is False if it had ended. The key is the event's idempotency key, else its id, within its
        tenant.

        Raises:
            StoreBusyError: Somebody else has it.
            StoreFullError: A million events are remembered.
        """
        return self._claims.claim(subscription, event)

    def around(self, handler: Any, subscription: str, *, asynchronous: bool) -> Any:
        """The handler between claim and completion."""
        if asynchronous:
            return lambda event: _run_async(self._steps(_ASYNC, handler, subscription, event))
        return lambda event: _run(self._steps(_SYNC, handler, subscription, event))

    def _steps(self, way: _Way, handler: Any, subscription: str, event: DomainEvent[Any]) -> Steps:
        claim, pause = self._claims.turn(subscription, event)
        if pause is not None:
            yield lambda: way.sleep(pause)
            raise StoreFailed("claiming an event")
        if claim is None:
            return None
        try:
            result = yield lambda: handler(event)
        except BaseException:
            claim.release()
            raise
        if not claim.complete():
            log.warning("%s: the claim of %s had ended before its handler did", subscription, event.id)
        return result


def _driver(tx: Any) -> Driver:
    if tx is None:
        from django.db import connection

        return recognise(connection)
    return recognise(tx)


async def _claimed(driver: Driver, statement: tuple[str, list[Any]]) -> bool:
    return await driver.run_async(statement) == 1


def _roll_back(way: _Way, manager: Any, error: BaseException) -> Steps:
    """Ends the transaction with the handler's exception; another one on top of it says less."""
    try:
        yield lambda: getattr(manager, way.exit)(type(error), error, error.__traceback__)
    except Exception as second:
        if second is not error:
            log.debug("rolling back failed too: %s", second)


class _Way(NamedTuple):
    """What threads and asyncio call differently."""

    enter: str
    exit: str
    sleep: Callable[[float], Any]


_SYNC = _Way("__enter__", "__exit__", time.sleep)
_ASYNC = _Way("__aenter__", "__aexit__", asyncio.sleep)


def _run(steps: Steps) -> Any:
    """Makes each call; its result or exception goes back in."""
    try:
        step = next(steps)
        while True:
            try:
                result = step()
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value


async def _run_async(steps: Steps) -> Any:
    """As `_run`, and awaits each."""
    try:
        step = next(steps)
        while True:
            try:
                result = await step()
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value

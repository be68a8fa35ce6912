"""The inbox: effects once, although an event may be delivered again.

    inbox = Inbox(pool.connection)        # whatever opens a transaction of yours

    @subscriber.handle("order.*", name="billing", inbox=inbox)
    def bill(event, connection):
        connection.execute("INSERT INTO bill …")

The claim is a row that the handler's own transaction writes, so effects and memory commit together. A redelivery finds
it and is acknowledged without the handler.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from ._handler import StoreFailed
from ._native import InboxWriter
from .outbox._drivers import Driver, recognise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from ._native import DomainEvent

__all__ = ["Inbox"]

PAUSE = 0.1
"""Seconds that a handler rests after its database has failed, doubling …"""
PAUSE_MAX = 5.0

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
    rests with growing pauses and the event goes back to the queue: no attempt is spent.
    """

    def __init__(self, open_tx: Callable[[], Any] | None = None, *, table: str = "tidings_inbox") -> None:
        self._open = open_tx
        self._table = table
        self._writers: dict[str, InboxWriter] = {}
        self._failures = 0

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
            return lambda event: self._run_async(opening, handler, subscription, event)
        return lambda event: self._run(opening, handler, subscription, event)

    def _writer(self, driver: Driver) -> InboxWriter:
        writer = self._writers.get(driver.dialect)
        if writer is None:
            writer = self._writers[driver.dialect] = InboxWriter(driver.dialect, self._table)
        return writer

    def _run(self, opening: Callable[[], Any], handler: Any, subscription: str, event: DomainEvent[Any]) -> Any:
        try:
            manager = opening()
            tx = manager.__enter__()
        except Exception as error:
            raise self._rest("opening a transaction", error) from error
        try:
            claimed = self.claim(tx, event, subscription)
        except Exception as error:
            _rolled_back(manager, error)
            raise self._rest("claiming an event", error) from error
        result = None
        if claimed:
            try:
                result = handler(event, tx)
            except BaseException as error:
                _rolled_back(manager, error)
                raise
        try:
            manager.__exit__(None, None, None)
        except Exception as error:
            raise self._rest("committing", error) from error
        self._failures = 0
        return result

    async def _run_async(
        self, opening: Callable[[], Any], handler: Any, subscription: str, event: DomainEvent[Any]
    ) -> Any:
        try:
            manager = opening()
            tx = await manager.__aenter__()
        except Exception as error:
            raise await self._rest_async("opening a transaction", error) from error
        try:
            claim: Any = self.claim(tx, event, subscription)
            claimed = await claim
        except Exception as error:
            await _rolled_back_async(manager, error)
            raise await self._rest_async("claiming an event", error) from error
        result = None
        if claimed:
            try:
                result = await handler(event, tx)
            except BaseException as error:
                await _rolled_back_async(manager, error)
                raise
        try:
            await manager.__aexit__(None, None, None)
        except Exception as error:
            raise await self._rest_async("committing", error) from error
        self._failures = 0
        return result

    def _rest(self, doing: str, error: Exception) -> StoreFailed:
        time.sleep(self._pause(doing, error))
        return StoreFailed(doing)

    async def _rest_async(self, doing: str, error: Exception) -> StoreFailed:
        await asyncio.sleep(self._pause(doing, error))
        return StoreFailed(doing)

    def _pause(self, doing: str, error: Exception) -> float:
        pause: float = min(PAUSE * 2 ** min(self._failures, 10), PAUSE_MAX)
        self._failures += 1
        log.warning("the inbox's database failed while %s (%s), trying again in %.1f s", doing, error, pause)
        return pause


def _driver(tx: Any) -> Driver:
    if tx is None:
        from django.db import connection

        return recognise(connection)
    return recognise(tx)


async def _claimed(driver: Driver, statement: tuple[str, list[Any]]) -> bool:
    return await driver.run_async(statement) == 1


def _rolled_back(manager: Any, error: BaseException) -> None:
    """Ends the transaction with the handler's exception; another one on top of it says less."""
    try:
        manager.__exit__(type(error), error, error.__traceback__)
    except Exception as second:
        if second is not error:
            log.debug("rolling back failed too: %s", second)


async def _rolled_back_async(manager: Any, error: BaseException) -> None:
    try:
        await manager.__aexit__(type(error), error, error.__traceback__)
    except Exception as second:
        if second is not error:
            log.debug("rolling back failed too: %s", second)

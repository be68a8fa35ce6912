"""`Outbox`: writing in the caller's transaction, and the table as relays and operators see it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _tracing, errors
from .._connection import DEFAULT
from .._handler import seconds
from .._native import DomainEvent, OutboxWriter, outbox_schema
from ._drivers import recognise, run_all, run_all_async
from ._relay import FailedRow, OutboxStatus, Relay
from ._store import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from datetime import datetime, timedelta

    from ._drivers import Statement
    from ._store import Store

MAX_PAYLOAD = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event with what only the outbox needs to know.

    Args:
        event: The event.
        available_at: Seconds since the Unix epoch, or an aware datetime: published then, not before. Until then it
            holds up no other event, also none of its key.
        exchange: Another exchange than the relay's.
    """

    event: DomainEvent[Any]
    available_at: float | datetime | None = None
    exchange: str | None = None


class Outbox:
    """An outbox in a database.

    Args:
        url: The database, for relays and operators: `postgres://…`, `mysql://…`, `sqlite:path.db`. Default:
            `TIDINGS_STORE_URL`. Writing needs none: it uses the caller's connection.
        table: Name of the table, or `schema.table`.
        notify: PostgreSQL: the commit wakes relays that listen.
        serialize: The second writer of a key waits until the first has committed, so that the order of transactions
            that overlap is kept.
        max_payload: Largest body in bytes. The relay's must not be smaller.

    >>> import sqlite3
    >>> outbox, connection = Outbox(), sqlite3.connect(":memory:")
    >>> _ = connection.executescript(Outbox.schema("sqlite"))
    >>> with connection:
    ...     outbox.add(connection, DomainEvent("order.placed", {"order": 7}))
    >>> connection.execute("SELECT status, routing_key FROM tidings_outbox_status").fetchall()
    [('PENDING', 'order.placed')]
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        table: str = "tidings_outbox",
        notify: bool = False,
        serialize: bool = False,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        self._url = url
        self._table = table
        self._notify = notify
        self._serialize = serialize
        self._max_payload = max_payload
        self._writers: dict[tuple[str, bool], OutboxWriter] = {}
        self._store: Store | None = None

    def add(
        self,
        connection: Any,
        events: DomainEvent[Any] | OutboxEvent | Iterable[DomainEvent[Any] | OutboxEvent],
        *,
        serialize: bool | None = None,
        assume_transaction: bool = False,
    ) -> Awaitable[None] | None:
        """Writes events on the caller's connection, in its open transaction. They are published if that commits.

        One statement for up to 3,000 events and 8 MiB. On an asynchronous connection the result must be awaited.

        Args:
            connection: Of psycopg 3, asyncpg, SQLAlchemy 2 (Connection, Session, and their asynchronous kin), Django,
                sqlite3, PyMySQL or mysqlclient.
            events: One, or many.
            serialize: Overrides that of the outbox.
            assume_transaction: Do not look whether a transaction is open. For drivers that do not show it.

        Raises:
            NoTransactionError: The connection would commit the events by themselves.
            PayloadTooLargeError, HeadersTooLargeError, InvalidHeaderError, InvalidNameError: No relay could publish it.
            TypeError: The connection is of no driver that is known.
        """
        driver = recognise(connection)
        driver.check(assume_transaction=assume_transaction)
        statements = self.statements(driver.dialect, driver.style, events, serialize=serialize)
        if driver.asynchronous:
            return run_all_async(driver, statements)
        run_all(driver, statements)
        return None

    def statements(
        self,
        dialect: str,
        style: str,
        events: DomainEvent[Any] | OutboxEvent | Iterable[DomainEvent[Any] | OutboxEvent],
        *,
        serialize: bool | None = None,
    ) -> list[Statement]:
        """What `add` runs, as `(sql, parameters)`: for drivers that it does not know.

        Args:
            dialect: `postgres`, `mysql` or `sqlite`.
            style: How parameters are marked: `dollar` ($1), `question` (?), `format` (%s) or `named` (:p1).
            events: One, or many.
            serialize: Overrides that of the outbox.
        """
        serialize = self._serialize if serialize is None else serialize
        writer = self._writers.get((dialect, serialize))
        if writer is None:
            writer = OutboxWriter(dialect, self._table, self._notify, serialize, self._max_payload)
            self._writers[dialect, serialize] = writer
        many = [events] if isinstance(events, DomainEvent | OutboxEvent) else events
        return writer.insert(style, [_row(event) for event in many])

    @staticmethod
    def schema(dialect: str, table: str = "tidings_outbox") -> str:
        """The tables as SQL, for a migration tool of your own."""
        return outbox_schema(dialect, table)

    def install(self) -> None:
        """Creates the tables, or brings them to this version. Any number of processes may do so at once."""
        self._call("install")

    def relay(
        self,
        connection_settings: str = DEFAULT,
        *,
        exchange: str | None = None,
        batch: int | None = None,
        max_payload: int | None = None,
        lease: float | timedelta | None = None,
        poll_interval: float | timedelta | None = None,
        publish_timeout: float | timedelta | None = None,
        max_attempts: int | None = None,
        initial_backoff: float | timedelta | None = None,
        max_backoff: float | timedelta | None = None,
        on_failed: str | None = None,
        keep: float | timedelta | None = None,
        listen: bool | None = None,
    ) -> Relay:
        """Starts a relay to a broker. Any number may run, in any number of processes.

        It runs on the engine's threads, also while Python is busy; that of a SQLite file in a process of its own, which
        is watched over and ends with this one.

        Args:
            connection_settings: The broker's URL. Default: that of the environment, see `tidings.DEFAULT`.
            exchange: Where events go that name none.
            batch: Events that are published and settled together (1,000).
            max_payload: Largest body in bytes (1 MiB).
            lease: Seconds that others wait for a relay that says nothing (30).
            poll_interval: Longest pause between two looks, in seconds (1; ten times that with `listen`).
            publish_timeout: Seconds for a confirm (10); below half the lease.
            max_attempts: Tries of an event that the broker refuses (20).
            initial_backoff: First pause before such a try, in seconds (1), doubling …
            max_backoff: … up to this (300).
            on_failed: `block` (default): later events of a key wait for a failed one; `pass`: they do not.
            keep: Keeps published rows for so many seconds. Default: they are deleted.
            listen: PostgreSQL: be woken by writers that notify.

        Raises:
            InvalidOptionError: Settings that make no sense, or tables that are not there.
            TidingsError: The database cannot be reached.
        """
        settings = {
            "exchange": exchange,
            "batch": batch,
            "max_payload": max_payload,
            "lease": seconds(lease),
            "poll_interval": seconds(poll_interval),
            "publish_timeout": seconds(publish_timeout),
            "max_attempts": max_attempts,
            "initial_backoff": seconds(initial_backoff),
            "max_backoff": seconds(max_backoff),
            "on_failed": on_failed,
            "keep": seconds(keep),
            "listen": listen,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        return Relay(self._reach().relay(connection_settings, json.dumps(given)))

    def status(self) -> OutboxStatus:
        """How many rows there are of each status, and how old the oldest unpublished one is. Counts all rows."""
        return OutboxStatus(**self._call("status"))

    def failed(self, *, after: int = 0, limit: int = 100) -> list[FailedRow]:
        """Rows that were given up on, by number. The next page begins after the last number of this one."""
        return [FailedRow(**row) for row in self._call("failed", after=after, limit=limit)]

    def retry(self, ids: Iterable[int]) -> int:
        """Has these failed rows tried again, as if they had never failed. Returns how many there were."""
        return int(self._call("retry", ids=list(ids)))

    def discard(self, ids: Iterable[int]) -> int:
        """Removes these failed rows; what waits behind them goes on. Returns how many there were."""
        return int(self._call("discard", ids=list(ids)))

    def drain(self, timeout: float | timedelta = 30.0) -> None:
        """Waits until nothing that is due is unpublished. Raises TimeoutError."""
        self._call("drain", seconds=seconds(timeout))

    def purge(self, age: float | timedelta) -> int:
        """Removes kept rows that were published more than `age` seconds ago, in small transactions."""
        return int(self._call("purge", seconds=seconds(age)))

    def close(self) -> None:
        """Lets go of the database. Stop relays before."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reach(self) -> Store:
        if self._store is None:
            url = self._url or os.environ.get("TIDINGS_STORE_URL")
            if not url:
                raise errors.InvalidOptionError(
                    "the outbox does not know its database",
                    field="url",
                    value="",
                    remedy='name it: Outbox("postgres://…"), or set TIDINGS_STORE_URL',
                )
            self._store = connect(url, self._table)
        return self._store

    def _call(self, operation: str, **request: Any) -> Any:
        return json.loads(self._reach().call(operation, json.dumps(request)))


def _row(one: DomainEvent[Any] | OutboxEvent) -> tuple[DomainEvent[Any], Any, str | None]:
    if isinstance(one, OutboxEvent):
        return _tracing.inject(one.event), one.available_at, one.exchange
    return _tracing.inject(one), None, None

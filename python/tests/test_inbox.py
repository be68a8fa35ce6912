"""Handlers in a transaction with the claim of their event."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tidings import DomainEvent, Publisher, Retry, Subscriber, aio
from tidings.errors import NoTransactionError, StoreBusyError
from tidings.inbox import Inbox, MemoryInbox


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = f"{tmp_path}/app.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(Inbox.schema("sqlite") + "CREATE TABLE bill (id TEXT)")
    connection.close()
    return path


@pytest.fixture
def table() -> Iterator[str]:
    url = os.environ.get("DATABASE_URL")
    if not url:
        pytest.skip("DATABASE_URL is not set: no PostgreSQL here (tests/services up)")
    name = f"py_in_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(Inbox.schema("postgres", name))  # type: ignore[arg-type]
        connection.execute(f"CREATE TABLE {name}_bill (id text)")
        yield name
        connection.execute(f"DROP TABLE {name}, {name}_bill")
        connection.execute("DELETE FROM tidings_schema WHERE component = %s", [f"inbox:{name}"])


def published(url: str, *ids: str) -> Publisher:
    publisher = Publisher(url)
    for one in ids:
        publisher.publish("order.placed", {}, idempotency_key=one)
    return publisher


def test_effects_happen_once_and_a_failure_takes_the_claim_back(file: str) -> None:
    url = f"memory:{uuid.uuid4().hex}"
    tries: list[str] = []

    @contextmanager
    def transaction() -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(file)
        with connection:
            yield connection
        connection.close()

    subscriber = Subscriber(url)

    @subscriber.handle("#", name="billing", max_retries=2, inbox=Inbox(transaction))
    def bill(event: DomainEvent[Any], connection: sqlite3.Connection) -> None:
        tries.append(event.idempotency_key)
        connection.execute("INSERT INTO bill VALUES (?)", (event.idempotency_key,))
        if tries == ["a"]:
            raise Retry(0)

    subscriber.declare()
    with published(url, "a", "a", "b", "a"):
        consume_until(subscriber, lambda: bills(file) == ["a", "b"])
    assert tries == ["a", "a", "b"]


def consume_until(subscriber: Subscriber, holds: Any) -> None:
    for _ in range(300):
        subscriber.start_consuming(timeout=0.1)
        if holds():
            break
    # What is a duplicate comes last and must change nothing.
    subscriber.start_consuming(timeout=0.3)
    subscriber.close()
    assert holds()


def bills(file: str) -> list[str]:
    connection = sqlite3.connect(file)
    found = [row[0] for row in connection.execute("SELECT id FROM bill ORDER BY id")]
    connection.close()
    return found


def test_a_database_that_is_away_spends_no_attempt(table: str) -> None:
    url, away = f"memory:{uuid.uuid4().hex}", [2]
    handled: list[int] = []

    def transaction() -> AbstractContextManager[Any]:
        if away[0]:
            away[0] -= 1
            raise OSError("the database is away")
        return psycopg.connect(os.environ["DATABASE_URL"])

    subscriber = Subscriber(url)

    @subscriber.handle("#", name="billing", inbox=Inbox(transaction, table=table))
    def bill(event: DomainEvent[Any], connection: Any) -> None:
        handled.append(event.retries)
        connection.execute(f"INSERT INTO {table}_bill VALUES (%s)", (event.id,))

    subscriber.declare()
    with published(url, "a", "a"):
        consume_until(subscriber, lambda: handled == [0])


def test_in_asyncio(table: str) -> None:
    async def run() -> None:
        url, done = f"memory:{uuid.uuid4().hex}", asyncio.Event()
        handled: list[str] = []

        @asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            connection = await asyncpg.connect(os.environ["DATABASE_URL"])
            async with connection.transaction():
                yield connection
            await connection.close()

        subscriber = aio.Subscriber(url)
        try:

            @subscriber.handle("#", name="billing", inbox=Inbox(transaction, table=table))
            async def bill(event: DomainEvent[Any], connection: Any) -> None:
                handled.append(event.idempotency_key)
                if event.idempotency_key == "end":
                    done.set()

            await subscriber.start()
            publisher = aio.Publisher(url)
            for one in ("a", "a", "end"):
                await publisher.publish("order.placed", {}, idempotency_key=one)
            await asyncio.wait_for(done.wait(), 30)
            await publisher.close()
        finally:
            await subscriber.close()
        assert handled == ["a", "end"]

    asyncio.run(run())


def test_the_primitive_claims_in_a_transaction_of_ones_own(file: str) -> None:
    inbox, event = Inbox(), DomainEvent("a.b", {}, tenant="t")
    connection = sqlite3.connect(file)
    assert inbox.claim(connection, event, "s") is True
    assert inbox.claim(connection, event, "s") is False
    assert inbox.claim(connection, event, "other") is True
    connection.rollback()
    assert inbox.claim(connection, event, "s") is True
    connection.commit()
    assert inbox.forget(connection, 3600) == 0
    # Older than now: not yet within the same tick of the clock.
    while not (forgotten := inbox.forget(connection, 0)):
        continue
    assert forgotten == 1
    connection.close()
    loose = sqlite3.connect(file, isolation_level=None)
    with pytest.raises(NoTransactionError):
        inbox.claim(loose, event, "s")
    loose.close()


def test_a_handler_of_an_inbox_takes_two_arguments() -> None:
    with pytest.raises(TypeError, match="two arguments"):
        Subscriber("memory:").register(lambda event: None, "s", ["#"], inbox=Inbox(lambda: None))


def test_a_memory_inbox_runs_a_handler_once_and_releases_what_failed() -> None:
    url, inbox = f"memory:{uuid.uuid4().hex}", MemoryInbox(3600, lease=30)
    handled: list[tuple[str, int]] = []
    subscriber = Subscriber(url)

    @subscriber.handle("#", name="mails", max_retries=1, inbox=inbox)
    def mail(event: DomainEvent[Any]) -> None:
        handled.append((event.idempotency_key, event.retries))
        if handled == [("a", 0)]:
            raise Retry(0)

    subscriber.declare()
    with published(url, "a", "a", "b", "a"):
        # The first run fails and is released, so one of the others with its key may come before its retry.
        consume_until(subscriber, lambda: {key for key, _ in handled[1:]} == {"a", "b"})
    assert len(handled) == 3


def test_a_memory_inbox_gives_back_what_somebody_else_is_at() -> None:
    url, inbox = f"memory:{uuid.uuid4().hex}", MemoryInbox()
    handled: list[int] = []

    async def run() -> None:
        done = asyncio.Event()
        subscriber = aio.Subscriber(url)
        try:

            @subscriber.handle("#", name="mails", inbox=inbox)
            async def mail(event: DomainEvent[Any]) -> None:
                handled.append(event.retries)
                done.set()

            await subscriber.start()
            held = inbox.claim(DomainEvent("a.b", {}, idempotency_key="a"), "mails")
            assert held is not None
            assert held.renew()
            async with aio.Publisher(url) as publisher:
                await publisher.publish("order.placed", {}, idempotency_key="a")
            while not any(name == "tidings_released_total" and value for name, _, _, value in subscriber.metrics()):
                await asyncio.sleep(0.01)
            assert handled == []
            held.release()
            await asyncio.wait_for(done.wait(), 30)
        finally:
            await subscriber.close()

    asyncio.run(run())
    assert handled == [0]


def test_a_memory_inbox_of_ones_own() -> None:
    inbox, event = MemoryInbox(), DomainEvent("a.b", {}, tenant="t")
    claim = inbox.claim(event, "s")
    assert claim is not None
    with pytest.raises(StoreBusyError):
        inbox.claim(event, "s")
    assert claim.complete()
    assert not claim.renew()
    assert inbox.claim(event, "s") is None
    assert inbox.claim(event, "other") is not None

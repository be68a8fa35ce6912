"""The scenarios of tests/conformance/outbox with every driver, on the databases that are there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from tests.outbox_drivers import DRIVERS, Database
from tidings import DomainEvent, TidingsError, _native
from tidings.outbox import Outbox, OutboxEvent

SCENARIOS = json.loads((Path(__file__).parents[2] / "tests/conformance/outbox/scenarios.json").read_text())
PATIENCE = 60.0
# One driver of each database shows what only relays do; the others what they themselves do.
THOROUGH = {"psycopg", "PyMySQL", "sqlite3"}


def events(specification: dict[str, Any]) -> list[OutboxEvent]:
    repeat = specification.get("repeat")
    ids = [f"{specification['id']}.{n}" for n in range(repeat)] if repeat else [specification["id"]]
    return [event(specification, one) for one in ids]


def event(specification: dict[str, Any], identifier: str) -> OutboxEvent:
    data = "x" * specification["bytes"] if "bytes" in specification else specification.get("data", {})
    made: DomainEvent[Any] = DomainEvent(
        specification.get("routing_key", "test.event"),
        data,
        specification.get("domain_object_id"),
        identifier,
        key=specification.get("key"),
        tenant=specification.get("tenant"),
        headers=specification.get("headers"),
    )
    wait = specification.get("available_in_ms")
    return OutboxEvent(made, None if wait is None else time() + wait / 1000, specification.get("exchange"))


class Stage:
    """Carries out the steps of one scenario."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.url = url
        self.outbox = Outbox(database.url, table=database.table, notify=True)
        self.outbox.install()
        self.broker = _native.Broker.connect(url)
        self.deliveries = self.broker.deliveries("all", ["#"], {"prefetch": 20_000})
        self.group = _native.Group([self.deliveries])
        self.seen: dict[str, DomainEvent[Any]] = {}
        self.open: dict[str, Any] = {}

    def close(self) -> None:
        self.outbox.close()
        self.deliveries.close(0)
        self.broker.close()

    async def carry_out(self, step: dict[str, Any]) -> None:
        kind = step["step"]
        if kind in ("begin", "commit", "rollback"):
            await self.transaction(kind, step["tx"])
        elif kind == "add":
            await self.add(step)
        elif kind in ("break", "mend"):
            good = event({"id": step["id"]}, step["id"]).event.to_json()
            self.database.set_body(step["id"], "not an event" if kind == "break" else good)
        elif kind == "relay":
            await asyncio.to_thread(self.relay, step.get("options", {}))
        elif kind in ("retry", "discard"):
            numbers = [row.id for row in self.outbox.failed() if row.event_id in step["ids"]]
            assert getattr(self.outbox, kind)(numbers) == len(step["ids"])
        elif kind == "purge":
            self.outbox.purge(step["older_than_ms"] / 1000)
        elif kind == "published":
            self.published(step.get("ids"), step.get("count"))
        elif kind == "headers":
            assert {name: self.seen[step["id"]].headers[name] for name in step["headers"]} == step["headers"]
        elif kind == "data":
            assert self.seen[step["id"]].data == step["data"]
        else:
            assert kind == "status"
            found = self.outbox.status()
            assert (found.pending, found.processed, found.failed) == (
                step["pending"],
                step["processed"],
                step["failed"],
            )

    async def transaction(self, kind: str, name: str) -> None:
        if kind == "begin":
            self.open[name] = await self.database.begin()
        else:
            await self.open.pop(name).end(commit=kind == "commit")

    async def add(self, step: dict[str, Any]) -> None:
        tx, expected = self.open[step["tx"]], step.get("error")
        many = [one for specification in step["events"] for one in events(specification)]
        writing = self.write(tx.connection, many, serialize=step.get("serialize", False))
        if expected is None:
            await writing
        elif expected == "the database's":
            with pytest.raises(Exception, match=r"(?i)duplicate|unique"):
                await writing
        else:
            with pytest.raises(TidingsError, match=expected):
                await writing

    async def write(self, connection: Any, many: list[OutboxEvent], *, serialize: bool) -> None:
        added = self.outbox.add(connection, many, serialize=serialize)
        if added is not None:
            await added

    def relay(self, options: dict[str, Any]) -> None:
        given = {
            name: options[name] for name in ("on_failed", "max_attempts", "max_payload", "batch") if name in options
        }
        if "backoff_ms" in options:
            given["initial_backoff"] = given["max_backoff"] = options["backoff_ms"] / 1000
        if options.get("keep"):
            given["keep"] = 3600
        with self.outbox.relay(self.url, poll_interval=0.05, **given) as relay:
            self.outbox.drain(PATIENCE)
            assert relay.health().last_error is None

    def published(self, ids: list[str] | None, count: int | None) -> None:
        expected = len(ids) if ids is not None else count or 0
        found: list[str] = []
        while True:
            # Everything is published; what is expected is waited for, and what is not would be there already.
            batch = self.group.next(1000, PATIENCE if len(found) < expected else 0.02)
            if not batch:
                break
            for delivery in batch:
                found.append(delivery.event.id)
                self.seen[delivery.event.id] = delivery.event
            self.group.settle_soon([(delivery, None) for delivery in batch])
        if ids is not None:
            assert found == ids
        else:
            assert [int(one.rpartition(".")[2]) for one in found] == list(range(expected))


@pytest.fixture(params=sorted(DRIVERS))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = DRIVERS[request.param](f"py_{uuid.uuid4().hex[:12]}", tmp_path)
    yield database
    database.remove()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
def test_scenario(database: Database, scenario: dict[str, Any], tmp_path: Path) -> None:
    if scenario.get("concurrent") and database.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    if scenario.get("relay") and database.name not in THOROUGH:
        pytest.skip("shown with another driver of this database")
    # The relay of a SQLite file runs in another process, which reaches no broker in the memory of this one.
    file = f"sqlite:{tmp_path}/broker.db?synchronous=normal"
    stage = Stage(database, file if database.dialect == "sqlite" else f"memory:{database.table}")

    async def run() -> None:
        for step in scenario["steps"]:
            await stage.carry_out(step)
        await database.finish()

    try:
        asyncio.run(run())
    finally:
        stage.close()


def test_no_open_transaction_is_an_error_that_explains_itself(database: Database) -> None:
    """Nothing is written on a connection that commits by itself."""

    async def run() -> None:
        connection = await database.autocommitting()
        with pytest.raises(TidingsError) as caught:
            await add(Outbox(table=database.table), connection)
        assert caught.value.code == "NO_TRANSACTION"
        assert caught.value.remedy
        await database.finish()

    asyncio.run(run())


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.outbox_drivers import DRIVERS
from tidings import DomainEvent
from tidings.outbox import Outbox

name, table, folder, commits = sys.argv[1:]


async def main():
    database = DRIVERS[name](table, Path(folder))
    tx = await database.begin()
    added = Outbox(table=table).add(tx.connection, [DomainEvent("a.b", {"n": n}) for n in range(100)])
    if added is not None:
        await added
    if commits == "yes":
        await tx.end(commit=True)
    print("written", flush=True)
    sys.stdin.read()


asyncio.run(main())
"""


def test_a_writer_that_is_killed_before_its_commit_has_written_nothing(database: Database, tmp_path: Path) -> None:
    if database.name not in THOROUGH and "TIDINGS_LONG" not in os.environ:
        pytest.skip("shown with another driver of this database")
    outbox = Outbox(database.url, table=database.table)
    outbox.install()
    for commits, expected in (("no", 0), ("yes", 100), ("no", 100)):
        command = [sys.executable, "-c", WRITER, database.name, database.table, str(tmp_path), commits]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            writer.kill()
        assert outbox.status().pending == expected
    outbox.close()


async def add(outbox: Outbox, connection: Any) -> None:
    added = outbox.add(connection, DomainEvent("a.b", {}))
    if added is not None:
        await added


def test_an_object_of_no_driver_is_refused() -> None:
    with pytest.raises(TypeError, match="no connection that the outbox knows"):
        Outbox().add(object(), DomainEvent("a.b", {}))


def test_an_outbox_without_a_database_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDINGS_STORE_URL", raising=False)
    with pytest.raises(TidingsError, match="TIDINGS_STORE_URL"):
        Outbox().status()


def test_a_sqlite_file_survives_a_relay_while_the_program_writes_it(tmp_path: Path, script: Callable[..., Any]) -> None:
    """Two copies of SQLite in one process would corrupt it; the relay dies in the middle of it, too."""
    code = """
        import os, signal, sqlite3, sys
        from tidings import DomainEvent, _native
        from tidings.outbox import Outbox

        _native.Broker.connect("sqlite:broker.db").declare("all", ["#"], {})
        outbox = Outbox("sqlite:app.db")
        connection = sqlite3.connect("app.db", timeout=30)
        outbox.install()
        relay = outbox.relay("sqlite:broker.db", poll_interval=0.02, lease=2, publish_timeout=0.9)
        child = outbox._store.pid
        for number in range(400):
            with connection:
                outbox.add(connection, DomainEvent("a.b", {"n": number}, key="k", uuid_string=str(number)))
            if number == 200:
                os.kill(child, signal.SIGKILL)
            if number % 50 == 0:
                connection.close()
                connection = sqlite3.connect("app.db", timeout=30)
        while True:
            try:
                outbox.drain(30)
                break
            except ConnectionError:
                pass
        assert outbox._store.pid != child
        relay.stop()
        outbox.close()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        print("whole")
    """
    process = script(code)
    out, err = process.communicate(timeout=90)
    assert "whole" in out, err
    assert ids_of(f"sqlite:{tmp_path}/broker.db") == {str(number) for number in range(400)}


def ids_of(url: str) -> set[str]:
    """The events that the subscription has."""
    broker = _native.Broker.connect(url)
    deliveries = broker.deliveries("all", ["#"], {})
    group, found = _native.Group([deliveries]), set()
    while batch := group.next(1000, 0.5):
        found.update(delivery.event.id for delivery in batch)
        group.settle_soon([(delivery, None) for delivery in batch])
    deliveries.close(0)
    broker.close()
    return found


def test_the_process_of_a_sqlite_outbox_ends_with_the_program(script: Callable[..., Any]) -> None:
    code = """
        import os
        from tidings.outbox import Outbox

        outbox = Outbox("sqlite:app.db")
        outbox.install()
        relay = outbox.relay("sqlite:broker.db")
        print(outbox._store.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    process = script(code)
    child = int(process.stdout.readline())
    assert child != process.pid
    # It inherited the pipe of stderr, which ends with the last process that has it.
    process.communicate(timeout=60)

"""Publishing and subscribing by `broker:topic`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidings import DomainEvent, MessageBroker, Retry, TidingsError, errors

VECTORS = json.loads((Path(__file__).parents[2] / "tests/vectors/catalog.json").read_text())
TOPIC = {"event": "orders:new-orders", "env": "prd", "product_tag": "my_product"}


@pytest.fixture
def catalog(tmp_path: Path) -> dict[str, Any]:
    config = {"path": str(tmp_path / "orders.db")}
    return {
        "brokers": [{"tag": "orders", "envs": [{"slug": "prd", "type": "sqlite", "config": config}]}],
        "caches": [{"tag": "window", "expiry": 60_000}],
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in vector.get("environment", {}).items():
        monkeypatch.setenv(name, value)
    call = vector["call"]
    names = {"env": call.get("env"), "product_tag": call.get("product_tag"), "group": call.get("group")}
    broker = MessageBroker(vector["catalog"])
    if "error" in vector:
        with pytest.raises(TidingsError) as raised:
            broker.resolve(event=call["event"], **names)
        assert raised.value.code == vector["error"]
        assert vector.get("lists", "") in str(raised.value)
    else:
        assert broker.resolve(event=call["event"], **names) == vector["resolved"]


async def collect(broker: MessageBroker, count: int, **settings: Any) -> list[Any]:
    """The first messages of the topic."""
    seen: list[Any] = []
    done = asyncio.Event()

    async def callback(message: Any) -> None:
        seen.append(message)
        if len(seen) == count:
            done.set()

    subscription = await broker.subscribe(**TOPIC, input={"callback": callback, **settings})
    await asyncio.wait_for(done.wait(), 30)
    assert await subscription.unsubscribe() == 0
    return seen


def test_what_is_published_before_anybody_subscribes_is_there(catalog: dict[str, Any]) -> None:
    async def main() -> None:
        broker = MessageBroker(catalog)
        result = await broker.publish(**TOPIC, input={"message": {"id": 7}, "headers": {"tenant": "a"}, "key": "7"})
        assert result.success
        assert result.message_id != result.process_id
        assert await collect(broker, 1) == [{"id": 7}]
        await broker.close()

    asyncio.run(main())


def test_the_callback_is_told_about_the_event_if_it_wants(catalog: dict[str, Any]) -> None:
    async def main() -> None:
        broker = MessageBroker(catalog, product="my_product", env="prd")
        seen: asyncio.Queue[tuple[Any, DomainEvent[Any]]] = asyncio.Queue()

        async def callback(message: Any, event: DomainEvent[Any]) -> None:
            if event.retries == 0:
                raise Retry(0)
            seen.put_nowait((message, event))

        given = {"callback": callback, "max_retries": 1, "group": "billing"}
        subscription = await broker.subscribe(event=TOPIC["event"], input=given)
        assert subscription.subscription == "my_product.prd.orders.new-orders:billing"
        result = await broker.publish(event=TOPIC["event"], input={"message": [1]})
        message, event = await asyncio.wait_for(seen.get(), 30)
        assert (message, event.id, event.retries) == ([1], result.message_id, 1)
        assert event.headers["tidings-event-name"] == TOPIC["event"]
        await subscription.unsubscribe()
        await broker.close()

    asyncio.run(main())


def test_a_window_and_an_idempotency_key_send_once(catalog: dict[str, Any]) -> None:
    async def main() -> None:
        broker = MessageBroker(catalog)
        first = await broker.publish(**TOPIC, input={"message": 1}, cache="window")
        again = await broker.publish(**TOPIC, input={"message": 1}, cache="window")
        assert (again.cached, again.message_id) == (True, first.message_id)
        call = {**TOPIC, "input": {"message": 2}, "idempotency_key": "k"}
        first = await broker.service.publish_idempotent(**call)
        again = await broker.service.publish_idempotent(**call)
        assert again.message_id == first.message_id
        assert again.error is not None
        assert await collect(broker, 2) == [1, 2]
        reached = await broker.service.test_connection(product="my_product", env="prd", broker_tag="orders")
        assert reached["success"] is True
        await broker.close()

    asyncio.run(main())


def test_a_session_that_the_verifier_refuses_sends_nothing(catalog: dict[str, Any]) -> None:
    def verifier(session: Any) -> str:
        if session["token"] != "good":
            raise ValueError(f"{session['token']} is bad")
        return "ada"

    async def main() -> None:
        broker = MessageBroker(catalog, session_verifier=verifier)
        with pytest.raises(errors.SessionInvalidError) as raised:
            await broker.publish(**TOPIC, input={"message": 1}, session={"tag": "web", "token": "se-cret"})
        assert "se-cret" not in str(raised.value) + repr(raised.value)
        await broker.publish(**TOPIC, input={"message": 2}, session={"tag": "web", "token": "good"})
        assert await collect(broker, 1) == [2]
        await broker.close()

    asyncio.run(main())


def test_mistakes_are_said(catalog: dict[str, Any]) -> None:
    async def main() -> None:
        broker = MessageBroker(catalog)
        with pytest.raises(errors.BrokerNotFoundError, match="orders"):
            await broker.publish(**{**TOPIC, "event": "order:new"}, input={"message": 1})
        with pytest.raises(TypeError, match="async def"):
            await broker.subscribe(**TOPIC, input={"callback": print})

        async def callback(message: Any) -> None: ...

        with pytest.raises(TypeError, match="'retries'"):
            await broker.subscribe(**TOPIC, input={"callback": callback, "retries": 1})

    asyncio.run(main())


def test_the_catalog_of_the_environment(tmp_path: Path, catalog: dict[str, Any]) -> None:
    (tmp_path / "tidings.config.json").write_text(json.dumps(catalog))
    program = f"""
import asyncio
from tidings import message_broker
print(asyncio.run(message_broker.publish(**{TOPIC!r}, input={{"message": 1}})).success)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (ran.stdout, (tmp_path / "orders.db").exists()) == ("True\n", True)

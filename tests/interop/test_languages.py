"""Rust, Python and Node on one RabbitMQ: what one publishes the others read, and all compete for one subscription."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Broker
from tidings_client import CLIENTS, Line, TidingsClient

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = sorted(CLIENTS)
# Keys in order, and numbers that JavaScript writes as they are. No null: in the Python package it means no data, `{}`.
DATA: list[object] = [
    {},
    {"list": [1, 2.5, None, True, "x"], "name": "Zoë 🌊", "nested": {"text": 'q"\\\n\t'}, "user_id": 7},
    {"empty": "", "large": 2**53 - 1, "negative": -1, "unicode": "\u2028 é"},
    ["no", "object"],
]
HEADERS = {"tidings-correlation-id": "c-1", "tidings-tenant": "acme", "text": "Zürich"}


class Crew:
    """A client for each language, and the subscriptions that they leave."""

    def __init__(self, broker: Broker, stack: ExitStack) -> None:
        self.clients = {name: stack.enter_context(TidingsClient(broker.url, name)) for name in LANGUAGES}
        self._names: set[str] = set()
        stack.callback(self._delete)

    def subscribe(
        self, language: str, name: str, binding: str, handler: Line | None = None, **options: object
    ) -> None:
        self._names.add(name)
        self.clients[language].subscribe(name, binding, handler=handler, **options)

    def _delete(self) -> None:
        for client in self.clients.values():
            client.ask("stop")
        for name in self._names:
            self.clients["rust"].ask("delete", name=name)


@pytest.fixture
def crew(broker: Broker) -> Iterator[Crew]:
    """Everybody, connected."""
    with ExitStack() as stack:
        yield Crew(broker, stack)


@pytest.mark.parametrize("publisher", LANGUAGES)
def test_what_one_publishes_everybody_reads(crew: Crew, name: str, publisher: str) -> None:
    """The same five keys, the same headers, and the same bytes, whoever publishes and whoever reads."""
    keep = {"kind": "dead", "reason": "to look at it"}
    for language in LANGUAGES:
        crew.subscribe(language, f"{name}-{language}", f"{name}.#", handler=keep)
    events: list[Line] = [
        {
            "routing_key": f"{name}.registered",
            "data": data,
            "domain_object_id": None if number == 0 else f"Ü-{number}",
            "uuid_string": f"0198c0de-0000-7000-8000-{number:012}",
            "timestamp": 1360285200.25 + number,
        }
        for number, data in enumerate(DATA)
    ]
    for event in events:
        receipt = crew.clients[publisher].ask("publish_event", event=event, headers=HEADERS)
        assert (receipt["id"], receipt["routed"]) == (event["uuid_string"], True)
    for reader in LANGUAGES:
        effects = crew.clients[reader].effects(len(events))
        assert [effect["event"] for effect in effects] == events, reader
        for effect in effects:
            assert {key: effect["headers"].get(key) for key in HEADERS} == HEADERS, reader
    golden = [json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in events]
    for client in crew.clients.values():
        client.ask("stop")
    for reader in LANGUAGES:
        dead = crew.clients[reader].ask("dead_letters", name=f"{name}-{reader}")["dead"]
        assert [one["body"] for one in dead] == golden, reader


@pytest.mark.parametrize("publisher", LANGUAGES)
def test_all_languages_compete_for_one_subscription(crew: Crew, name: str, publisher: str) -> None:
    """Each event is handled by one of them, a retry by anybody."""
    count = 300
    again = {"kind": "retry_first", "times": 1, "every": 10, "delays_ms": [100]}
    for language in LANGUAGES:
        crew.subscribe(language, name, f"{name}.#", handler=again, concurrency=4, prefetch=16, max_retries=1)
    work = {"count": count, "prefix": f"{name}-", "routing_key": f"{name}.made", "in_flight": 50}
    assert crew.clients[publisher].ask("publish", **work)["confirmed"] == count
    outcomes: Counter[tuple[int, str]] = Counter()
    shares: Counter[str] = Counter()
    patience = time.monotonic() + 60
    while sum(outcomes.values()) < count + count // 10 and time.monotonic() < patience:
        for language, client in crew.clients.items():
            for effect in client.ready_effects():
                outcomes[effect["seq"], effect["outcome"]] += 1
                shares[language] += 1
    expected = Counter({(seq, "ok"): 1 for seq in range(count)})
    expected.update({(seq, "retry"): 1 for seq in range(0, count, 10)})
    assert outcomes == expected
    assert set(shares) == set(LANGUAGES), shares


PRODUCE = """
import { Tidings } from "./node/dist/index.mjs";
const { url, product } = JSON.parse(process.argv[1]);
const envs = [{ slug: "prd", type: "rabbitmq", config: { url } }];
const tidings = new Tidings({ catalog: { brokers: [{ tag: "orders", envs }] } });
const { messageBroker } = tidings.processor;
const request = { env: "prd", event: "orders:new-orders", product_tag: product };
const input = { message: { orderId: "12345", status: "pending" } };
console.log((await messageBroker.publish({ ...request, input })).message_id);
await tidings.close();
"""


def test_an_event_of_the_message_broker_is_an_event_for_all(broker: Broker, crew: Crew, name: str) -> None:
    """The catalog of Node publishes; Rust and Python, which know nothing of it, read."""
    for language in ("rust", "python"):
        crew.subscribe(language, f"{name}-{language}", f"{name}.#")
    given = json.dumps({"url": broker.url, "product": name})
    program = ["node", "--input-type=module", "--eval", PRODUCE, given]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for language in ("rust", "python"):
        effect = crew.clients[language].effect()
        event = effect["event"]
        assert event["routing_key"] == f"{name}.prd.new-orders"
        assert event["data"] == {"orderId": "12345", "status": "pending"}
        assert event["uuid_string"] == done.stdout.strip()
        assert effect["headers"]["tidings-event-name"] == "orders:new-orders"

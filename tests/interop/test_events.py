"""Events cross in both directions, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from domain_event_broker import DomainEvent, publish_domain_event

from conftest import Broker
from peer import consuming
from tidings_client import TidingsClient

DATA: list[dict[str, object]] = [
    {},
    {"user_id": 7, "name": "Zoë 🌊", "nested": {"list": [1, 2.5, None, True], "text": 'q"\\\n\t'}},
    {"large": 2**53 + 1, "negative": -1, "tiny": 1e-9, "empty": "", "unicode": "\u2028 \u0000"},
]


@pytest.mark.parametrize("data", DATA)
def test_it_publishes_and_we_consume(broker: Broker, name: str, client: TidingsClient, data: dict[str, object]) -> None:
    client.subscribe(name, f"{name}.*", compat=True)
    sent = publish_domain_event(f"{name}.registered", data, "object-1", connection_settings=broker.url)
    effect = client.effect()
    assert effect["event"] == sent.event_data
    assert effect["attempt"] == 0


@pytest.mark.parametrize("data", DATA)
def test_we_publish_and_it_consumes(broker: Broker, name: str, client: TidingsClient, data: dict[str, object]) -> None:
    event: dict[str, Any] = {
        "routing_key": f"{name}.registered",
        "data": data,
        "domain_object_id": "object-2",
        "uuid_string": "0190163d-8694-739b-aea5-966c26f8ad91",
        "timestamp": 1360285200.25,
    }
    with consuming(broker.url, name, f"{name}.*") as peer:
        receipt = client.ask("publish_event", event=event)
        received = peer.event()
    assert receipt["routed"] is True
    assert received.event_data == event
    assert received == DomainEvent(**event)
    assert received.retries == 0


def test_an_event_without_object_id_and_with_our_own_id(broker: Broker, name: str, client: TidingsClient) -> None:
    with consuming(broker.url, name, f"{name}.#") as peer:
        receipt = client.ask("publish_event", event={"routing_key": f"{name}.a.b", "data": {"n": 1}})
        received = peer.event()
    assert received.uuid_string == receipt["id"]
    assert received.domain_object_id is None
    assert isinstance(received.timestamp, float)


def test_the_same_bytes_are_written(broker: Broker, name: str, client: TidingsClient) -> None:
    """What the peer cannot see: an event that travelled through us is the one that it wrote."""
    client.subscribe(name, f"{name}.*", compat=True, handler={"kind": "dead", "reason": "to look at it"})
    sent = publish_domain_event(f"{name}.registered", DATA[1], connection_settings=broker.url)
    assert client.effect()["outcome"] == "dead"
    client.ask("stop")
    (dead,) = client.ask("dead_letters", name=name)["dead"]
    assert dead["body"] == json.dumps(sent.event_data)

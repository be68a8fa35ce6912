"""One side gives up, the other one replays."""

from __future__ import annotations

from domain_event_broker import DISCARD, DomainEvent, publish_domain_event, replay_all, replay_event

from conftest import Broker
from peer import consuming, wait_for_depth
from tidings_client import TidingsClient


def fail(event: DomainEvent) -> None:
    raise ValueError(f"cannot handle {event.uuid_string}")


def test_it_dead_letters_and_we_replay(broker: Broker, name: str, client: TidingsClient) -> None:
    with consuming(broker.url, name, f"{name}.*", fail) as peer:
        sent = [publish_domain_event(f"{name}.failed", {"n": n}, connection_settings=broker.url) for n in range(3)]
        peer.events(3)
        wait_for_depth(broker.url, f"{name}-dl", 3)
    dead = client.ask("dead_letters", name=name)["dead"]
    assert [one["id"] for one in dead] == [event.uuid_string for event in sent]
    assert {one["reason"] for one in dead} == {"rejected"}
    wait_for_depth(broker.url, f"{name}-dl", 3)

    report = client.ask("replay", name=name)
    assert (report["seen"], report["replayed"], report["remaining"]) == (3, 3, 0)
    with consuming(broker.url, name, f"{name}.*") as peer:
        assert peer.events(3) == sent
    wait_for_depth(broker.url, f"{name}-dl", 0)


def test_we_dead_letter_and_it_replays(broker: Broker, name: str, client: TidingsClient) -> None:
    client.subscribe(name, f"{name}.*", compat=True, handler={"kind": "fail", "message": "no"})
    sent = [publish_domain_event(f"{name}.failed", {"n": n}, connection_settings=broker.url) for n in range(3)]
    client.effects(3)
    wait_for_depth(broker.url, f"{name}-dl", 3)
    client.ask("stop")

    assert replay_event(name, connection_settings=broker.url) == 2
    with consuming(broker.url, name, f"{name}.*") as peer:
        assert peer.event() == sent[0]
        assert replay_event(name, lambda **_: DISCARD, connection_settings=broker.url) == 1
        assert replay_all(name, connection_settings=broker.url) == 0
        assert peer.event() == sent[2]


def test_replayed_events_start_again(broker: Broker, name: str, client: TidingsClient) -> None:
    """Retries spent, dead, replayed by us: the count is 0 again."""
    handler = {"kind": "retry_always", "delays_ms": [100]}
    client.subscribe(name, f"{name}.*", compat=True, max_retries=1, handler=handler)
    publish_domain_event(f"{name}.failed", {}, connection_settings=broker.url)
    assert [effect["attempt"] for effect in client.effects(2)] == [0, 1]
    wait_for_depth(broker.url, f"{name}-dl", 1)
    client.ask("replay", name=name)
    assert [effect["attempt"] for effect in client.effects(2)] == [0, 1]

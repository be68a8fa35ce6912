"""Both libraries on one subscription, during a migration for example."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty

import pytest
from domain_event_broker import publish_domain_event

from conftest import Broker
from peer import consuming, wait_for_depth
from tidings_client import CommandError, TidingsClient

COUNT = 40


@pytest.mark.parametrize("dead_letter", [True, False])
@pytest.mark.parametrize("first", ["peer", "tidings"])
def test_both_consume_one_queue(
    broker: Broker, name: str, client: TidingsClient, dead_letter: bool, first: str
) -> None:
    """Whoever declares first, nobody gets 406, and together they handle each event once."""

    def ours() -> None:
        # One at a time like the peer, or it would find nothing left.
        client.subscribe(
            name, f"{name}.*", compat=True, dead_letter=dead_letter, prefetch=1, handler={"kind": "sleep", "ms": 2}
        )

    if first == "tidings":
        ours()
    with consuming(broker.url, name, f"{name}.*", dead_letter=dead_letter) as peer:
        if first == "peer":
            ours()
        client.ask("publish", count=COUNT, prefix=f"{name}-", routing_key=f"{name}.happened", in_flight=COUNT)
        ids: set[str] = set()
        theirs = mine = 0
        while len(ids) < COUNT:
            with suppress(Empty):
                ids.add(client.effect(timeout=0.2)["id"])
                mine += 1
            while not peer.empty():
                ids.add(peer.event().uuid_string)
                theirs += 1
    wait_for_depth(broker.url, name, 0)
    assert ids == {f"{name}-{i}" for i in range(COUNT)}
    assert mine + theirs == COUNT
    assert mine > 0
    assert theirs > 0


def test_a_queue_of_the_peer_is_not_taken_for_a_native_one(broker: Broker, name: str, client: TidingsClient) -> None:
    with consuming(broker.url, name, f"{name}.*"):
        with pytest.raises(CommandError, match="inequivalent arg") as refused:
            client.subscribe(name, f"{name}.*")
        assert refused.value.code == "SUBSCRIPTION_CONFLICT"
        client.subscribe(name, f"{name}.*", compat=True)
    sent = publish_domain_event(f"{name}.registered", {"n": 1}, connection_settings=broker.url)
    assert client.effect()["event"] == sent.event_data


def test_what_we_retry_it_may_get(broker: Broker, name: str, client: TidingsClient) -> None:
    """Our retry comes back through the shared queue; the peer finds an event that it can read."""
    client.subscribe(
        name, f"{name}.*", compat=True, max_retries=3, handler={"kind": "retry_always", "delays_ms": [300]}
    )
    sent = publish_domain_event(f"{name}.registered", {"n": 1}, connection_settings=broker.url)
    assert client.effect()["outcome"] == "retry"
    client.ask("stop")
    with consuming(broker.url, name, f"{name}.*") as peer:
        assert peer.event() == sent

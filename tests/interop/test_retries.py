"""Retries: its delay queues when we take over, and its own README example on both sides."""

from __future__ import annotations

from itertools import pairwise

from domain_event_broker import DomainEvent, Retry, publish_domain_event

from conftest import Broker
from peer import consuming, wait_for_depth
from tidings_client import TidingsClient


def test_events_that_wait_in_its_delay_queues_go_on_here(broker: Broker, name: str, client: TidingsClient) -> None:
    """Two retries are spent there, with different delays; the third and last one is ours."""
    delays = iter([0.2, 2.0])

    def retry(event: DomainEvent) -> None:
        raise Retry(next(delays))

    with consuming(broker.url, name, f"{name}.*", retry, max_retries=3) as peer:
        sent = publish_domain_event(f"{name}.happened", {"n": 1}, connection_settings=broker.url)
        assert [event.retries for event in peer.events(2)] == [0, 1]
        wait_for_depth(broker.url, f"{name}-delay-2000", 1)
    handler = {"kind": "retry_always", "delays_ms": [100]}
    client.subscribe(name, f"{name}.*", compat=True, max_retries=3, handler=handler)
    first = client.effect()
    assert first["event"] == sent.event_data
    # RabbitMQ 4 ignores the `x-death` of a republished message, so there the peer's first retry is forgotten.
    spent = 2 if broker.generation == 3 else 1
    assert first["attempt"] == spent
    assert [effect["attempt"] for effect in client.effects(3 - spent)] == list(range(spent + 1, 4))
    wait_for_depth(broker.url, f"{name}-dl", 1)
    assert not any(header.startswith("x-") for header in first["headers"])


def test_its_readme_example_runs_exactly_max_retries_here(
    broker: Broker, name: str, client: TidingsClient, scale: float
) -> None:
    """`Retry(5.0 ** event.retries)` with `max_retries=3`: at 1, 5 and 25, then dead."""
    delays = [scale * 5.0**retries for retries in range(3)]
    handler = {"kind": "retry_always", "delays_ms": [round(1000 * delay) for delay in delays]}
    client.subscribe(name, f"{name}.*", compat=True, max_retries=3, handler=handler)
    sent = publish_domain_event(f"{name}.happened", {}, connection_settings=broker.url)
    effects = client.effects(4, timeout=60)
    assert [effect["attempt"] for effect in effects] == [0, 1, 2, 3]
    wait_for_depth(broker.url, f"{name}-dl", 1)
    (dead,) = client.ask("dead_letters", name=name)["dead"]
    assert (dead["id"], dead["reason"], dead["attempts"]) == (sent.uuid_string, "max-retries", 4)

    times = [effect["late_us"] / 1e6 for effect in effects]
    waited = [after - before for before, after in pairwise(times)]
    assert all(delay <= wait for delay, wait in zip(delays, waited, strict=True)), waited
    assert waited[0] < delays[1] < waited[1] < delays[2] < waited[2], waited


def test_its_readme_example_does_not_keep_to_max_retries_there(broker: Broker, name: str, scale: float) -> None:
    """The defect that we do not have, so that the comparison stays true: five retries, and on RabbitMQ 4 no end."""

    def retry(event: DomainEvent) -> None:
        raise Retry(scale * 5.0**event.retries)

    with consuming(broker.url, name, f"{name}.*", retry, max_retries=3) as peer:
        publish_domain_event(f"{name}.happened", {}, connection_settings=broker.url)
        retries = [event.retries for event in peer.events(6, timeout=60)]
        assert retries == ([0, 1, 1, 2, 1, 3] if broker.generation == 3 else [0, 1, 1, 1, 1, 1])
        if broker.generation == 3:
            wait_for_depth(broker.url, f"{name}-dl", 1)

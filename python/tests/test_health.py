"""What `health()` says, and pausing."""

from __future__ import annotations

import threading
import uuid
from time import monotonic
from typing import Any

import pytest

from tidings import DomainEvent, Retry, Subscriber, _native, errors, publish_domain_event


def test_health_pause_and_resume(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    seen: list[Any] = []
    paused = threading.Event()

    @subscriber.handle("a.#", name="s", concurrency=2)
    def handler(event: DomainEvent[Any]) -> None:
        if event.data == 1:
            subscriber.pause("s")
            (health,) = subscriber.health()
            assert health["paused"]
            assert health["subscription"] == "s"
            paused.set()
        seen.append(event.data)
        if len(seen) == 2:
            subscriber.stop_consuming()

    subscriber.declare()
    assert subscriber.health() == []
    publish_domain_event("a.b", 1, connection_settings=file_url)
    thread = threading.Thread(target=subscriber.start_consuming, kwargs={"timeout": 20})
    thread.start()
    assert paused.wait(10)
    publish_domain_event("a.b", 2, connection_settings=file_url)
    with pytest.raises(errors.SubscriptionNotFoundError):
        subscriber.pause("other")
    assert seen == [1]
    subscriber.resume("s")
    thread.join()
    assert seen == [1, 2]


def test_health_shows_who_runs_an_ordered_subscription_and_what_waits(amqp_url: str) -> None:
    name = f"ordered-{uuid.uuid4().hex}"
    subscriber = Subscriber(amqp_url)
    broker = _native.Broker.connect(amqp_url)

    def handler(event: DomainEvent[Any]) -> None:
        raise Retry(3600)

    subscriber.register(handler, name, [f"{name}.#"], max_retries=3, ordered=True)
    subscriber.declare()
    publish_domain_event(f"{name}.x", "waits", "key", connection_settings=amqp_url)
    thread = threading.Thread(target=subscriber.start_consuming)
    thread.start()
    try:
        until = monotonic() + 30
        order = None
        while order is None or order["waiting_keys"] + order["parked_keys"] == 0:
            assert monotonic() < until, f"the key does not wait: {order}"
            order = next((one["order"] for one in subscriber.health()), None)
    finally:
        subscriber.stop_consuming()
        thread.join()
        subscriber.close()
        broker.delete_subscription(name)
        broker.close()
    assert set(order) == {"owners", "waiting_keys", "parked_keys", "dead_keys", "oldest_waiting_seconds"}
    assert len(order["owners"]) == 1
    assert order["dead_keys"] == 0

"""The pytest plugin: a broker whose time stands still."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tidings import DomainEvent, Publisher, Retry, RetryPolicy, Subscriber, aio, publish_domain_event
from tidings.testing import TestBroker


def test_an_hour_of_retries(tidings_broker: TestBroker) -> None:
    subscriber = Subscriber()
    runs: list[int] = []

    @subscriber.handle("order.*", name="billing", retry=RetryPolicy.exponential(3, 600, factor=2))
    def bill(event: DomainEvent[Any]) -> None:
        runs.append(event.retries)
        raise ConnectionError("the gateway is down")

    tidings_broker.declare(subscriber)
    publish_domain_event("order.placed", {"id": 7})
    began = tidings_broker.now()
    for minutes, expected in ((0, [0]), (9, [0]), (1, [0, 1]), (19, [0, 1]), (1, [0, 1, 2])):
        tidings_broker.advance(timedelta(minutes=minutes))
        tidings_broker.settle_all(subscriber)
        assert runs == expected
    assert tidings_broker.now() == pytest.approx(began + 1800)
    assert tidings_broker.dead_letters("billing") == []
    tidings_broker.advance(2400)
    tidings_broker.settle_all(subscriber)
    (entry,) = tidings_broker.dead_letters("billing")
    assert (entry.reason, entry.error_type, entry.attempts) == ("max-retries", "ConnectionError", 4)


def test_handlers_that_publish_for_each_other(tidings_broker: TestBroker) -> None:
    one, two = Subscriber(), aio.Subscriber()
    seen: list[int] = []

    @one.handle("a.*", name="a")
    def first(event: DomainEvent[Any]) -> None:
        publish_domain_event("b.x", event.data + 1)

    @two.handle("b.*", name="b")
    async def second(event: DomainEvent[Any]) -> None:
        seen.append(event.data)
        if event.data < 10:
            await aio.publish_domain_event("a.x", event.data)

    tidings_broker.declare(one, two)
    publish_domain_event("a.x", 1)
    tidings_broker.settle_all(one, two)
    assert seen == list(range(2, 11))
    assert [event.data for event in tidings_broker.published("b.x")] == seen
    assert len(tidings_broker.published()) == 2 * len(seen)


def test_delays_wait_for_the_clock(tidings_broker: TestBroker) -> None:
    subscriber = Subscriber(tidings_broker.url)
    seen: list[Any] = []

    @subscriber.handle("a.*", name="a", max_retries=1, ordered=True)
    def handler(event: DomainEvent[Any]) -> None:
        seen.append((event.data, event.retries))
        if event.data == "again":
            raise Retry(60)

    tidings_broker.declare(subscriber)
    with Publisher() as publisher:
        publisher.publish("a.x", "later", delay=30)
        publisher.publish("a.x", "again")
    tidings_broker.settle_all(subscriber)
    assert seen == [("again", 0)]
    tidings_broker.advance(30)
    tidings_broker.settle_all(subscriber)
    assert seen == [("again", 0), ("later", 0)]
    tidings_broker.advance(30)
    tidings_broker.settle_all(subscriber)
    assert seen[2:] == [("again", 1)]
    assert len(tidings_broker.dead_letters("a")) == 1


def test_each_test_has_a_broker_of_its_own(tidings_broker: TestBroker) -> None:
    assert tidings_broker.published() == []

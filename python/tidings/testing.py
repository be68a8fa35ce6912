"""Tests without a broker, in which an hour of retries takes a millisecond.

This is a pytest plugin: installed with the package, it gives tests the fixture `tidings_broker`.

    def test_billing(tidings_broker):
        publish_domain_event("order.placed", {"id": 7})          # goes to the fixture's broker
        tidings_broker.settle_all(subscriber)                    # runs the handlers until nothing is left to do now
        tidings_broker.advance(3600)                             # an hour passes
        tidings_broker.settle_all(subscriber)
        assert tidings_broker.dead_letters("billing") == []

The broker is `memory:` with a clock that stands still unless it is moved. While the fixture is in use it is the broker
of the environment, so code that names no broker publishes to it; other code is given `tidings_broker.url`.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from . import _native

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from ._native import DeadLetterEntry, DomainEvent
    from .subscriber import Subscriber

__all__ = ["TestBroker", "tidings_broker"]

#: Seconds that handlers get in all, in real time, until nothing is left to do.
PATIENCE = 30.0


class TestBroker:
    """A broker in memory whose time stands still.

    Attributes:
        url: Its URL, for publishers and subscribers that do not take the environment's.
    """

    __test__ = False

    def __init__(self) -> None:
        name = f"test-{uuid.uuid4().hex}"
        self.url = f"memory:{name}"
        self._native = _native.TestBroker(name)
        self._broker = self._native.broker()

    def advance(self, seconds: float | timedelta) -> None:
        """Lets time pass: what is due by then can be handled by `settle_all`."""
        self._native.advance(seconds)

    def now(self) -> float:
        """The broker's time, in seconds since the Unix epoch."""
        return self._native.now()

    def published(self, routing_key: str | None = None) -> list[DomainEvent[Any]]:
        """What was published, in order, delayed events included; only that with this routing key, if one is given."""
        return [event for event in self._native.published() if routing_key in (None, event.routing_key)]

    def dead_letters(self, subscription: str) -> list[DeadLetterEntry]:
        """The dead letters of a subscription, oldest first."""
        return _native.dead_letters(self._broker, subscription, {}, 1_000_000)

    def declare(self, *subscribers: Subscriber) -> None:
        """Declares the subscriptions of these subscribers, so that they get what is published from now on."""
        for subscriber in subscribers:
            for one in subscriber._prepared():
                self._broker.declare(one.name, one.binding_keys, one.settings)

    def settle_all(self, *subscribers: Subscriber) -> None:
        """Runs the handlers of these subscribers on this thread until nothing is left to do at this time.

        Handlers that publish for each other are run as well. What waits for a retry or a delay stays: see `advance`.
        Which broker the subscribers name has no meaning here.

        Raises:
            AssertionError: Handlers are still at it after half a minute.
        """
        from ._settle import settle

        registrations = [one for subscriber in subscribers for one in subscriber._prepared()]
        settle(self._native, self._broker, registrations, PATIENCE)

    def close(self) -> None:
        """Forgets everything."""
        self._broker.close()


def _fixture() -> Iterator[TestBroker]:
    """A broker in memory whose time stands still; the broker of the environment during the test."""
    broker = TestBroker()
    before = os.environ.get("TIDINGS_BROKER_URL")
    os.environ["TIDINGS_BROKER_URL"] = broker.url
    try:
        yield broker
    finally:
        if before is None:
            del os.environ["TIDINGS_BROKER_URL"]
        else:
            os.environ["TIDINGS_BROKER_URL"] = before
        broker.close()


try:
    import pytest
except ImportError:  # without pytest there is TestBroker
    pass
else:
    tidings_broker = pytest.fixture(name="tidings_broker")(_fixture)

"""Publishing, to every broker."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import pytest

from tidings import DomainEvent, Publisher, Receipt, Subscriber, _native, errors, publish_domain_event


def drain(url: str, name: str, keys: list[str], count: int, timeout: float = 20) -> list[DomainEvent[Any]]:
    """Consumes until `count` events are there."""
    seen: list[DomainEvent[Any]] = []
    subscriber = Subscriber(url)

    def handler(event: DomainEvent[Any]) -> None:
        seen.append(event)
        if len(seen) == count:
            subscriber.stop_consuming()

    subscriber.register(handler, name, keys)
    subscriber.start_consuming(timeout=timeout)
    subscriber.close()
    return seen


@pytest.fixture
def bound(broker: _native.Broker, name: str) -> list[str]:
    """Binding keys of a subscription that exists."""
    keys = [f"{name}.#"]
    broker.declare(name, keys, {})
    return keys


def test_what_is_published_arrives_as_it_was(url: str, name: str, bound: list[str]) -> None:
    sent = publish_domain_event(f"{name}.one", {"näme": "Zoë"}, "7", connection_settings=url, headers={"h": "x"})
    (seen,) = drain(url, name, bound, 1)
    assert seen == sent
    assert seen.headers["h"] == "x"
    assert seen.domain_object_id == "7"
    assert seen.retries == 0


def test_a_publisher_as_context_manager(url: str, name: str, bound: list[str]) -> None:
    with Publisher(url) as publisher:
        receipt = publisher.publish(DomainEvent(f"{name}.one", {"n": 1}))
        assert receipt.routed is True
        assert publisher.publish("nobody.wants.this", {}).routed is False
        results = publisher.publish_batch(DomainEvent(f"{name}.n{n}", {"n": n}) for n in range(500))
        assert all(isinstance(one, Receipt) and one.routed for one in results)
        publisher.flush()
    publisher.close()
    seen = drain(url, name, bound, 501)
    assert sorted(event.data["n"] for event in seen) == sorted([1, *range(500)])


def test_one_that_fails_does_not_stop_the_others(url: str, name: str, bound: list[str]) -> None:
    with Publisher(url, max_payload=1000) as publisher:
        batch = [DomainEvent(f"{name}.x", {"n": 1}), DomainEvent(f"{name}.x", "x" * 2000), DomainEvent(f"{name}.x")]
        good, bad, other = publisher.publish_batch(batch)
        assert isinstance(good, Receipt)
        assert isinstance(bad, errors.PayloadTooLargeError)
        assert isinstance(other, Receipt)


def test_a_delay_holds_the_event_back(url: str, name: str, bound: list[str]) -> None:
    with Publisher(url) as publisher:
        assert publisher.publish(f"{name}.later", {}, delay=dt.timedelta(seconds=3)).routed is None
        soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=1)
        publisher.publish(f"{name}.soon", {}, deliver_at=soon)
        publisher.publish(f"{name}.now", {})
    seen = drain(url, name, bound, 3)
    assert seen[0].routing_key == f"{name}.now"
    assert len(seen) == 3


def test_require_route_raises(url: str, broker: _native.Broker) -> None:
    with Publisher(url) as publisher, pytest.raises(errors.UnroutableError):
        publisher.publish("nobody.wants.this", {}, require_route=True)


def test_wrong_arguments_read_well(file_url: str) -> None:
    with Publisher(file_url) as publisher:
        with pytest.raises(TypeError, match="not both"):
            publisher.publish("a.b", {}, delay=1, deliver_at=1)
        with pytest.raises(errors.InvalidDelayError, match="0 or more"):
            publisher.publish("a.b", {}, delay=-1)
        with pytest.raises(TypeError, match="seconds or a timedelta"):
            publisher.publish("a.b", {}, delay="soon")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="made already"):
            publisher.publish(DomainEvent("a.b"), {"x": 1})  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="routing key"):
            publisher.publish(7)  # type: ignore[call-overload]
        with pytest.raises(errors.HeadersTooLargeError):
            publisher.publish("a.b", {}, headers={"x": "x" * 70_000})


def test_none_disables() -> None:
    event = publish_domain_event("a.b", {"n": 1}, connection_settings=None)
    assert event.data == {"n": 1}
    with Publisher(None) as publisher:
        assert publisher.publish("a.b", {}).routed is None
        assert publisher.publish_batch([event])[0].id == event.id  # type: ignore[union-attr]
    Subscriber(None).start_consuming()


def test_middleware_goes_around_outermost_first(file_url: str) -> None:
    calls: list[str] = []

    def outer(event: DomainEvent[Any], call: Any) -> Receipt:
        calls.append("outer")
        receipt = call(event.with_header("seen-by", "outer"))
        calls.append("done")
        return receipt

    def inner(event: DomainEvent[Any], call: Any) -> Receipt:
        calls.append(f"inner after {event.headers['seen-by']}")
        return call(event)

    with Publisher(file_url, middleware=[outer, inner]) as publisher:
        publisher.publish("a.b", {})
        publisher.publish_batch([DomainEvent("a.b")])
    assert calls == ["outer", "inner after outer", "done"] * 2


def test_the_environment_names_the_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TIDINGS_BROKER_URL", f"sqlite:{tmp_path}/named.db")
    publish_domain_event("a.b", {})
    assert (tmp_path / "named.db").exists()
    monkeypatch.delenv("TIDINGS_BROKER_URL")
    monkeypatch.chdir(tmp_path)
    publish_domain_event("a.b", {})
    assert (tmp_path / "tidings.db").exists()
    monkeypatch.setenv("TIDINGS_REQUIRE_BROKER", "1")
    os.mkdir(tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(errors.InvalidUrlError):
        publish_domain_event("a.b", {})

"""The stand-in for domain-event-broker: what its own published tests do not look at."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import finish
from tidings import errors
from tidings.compat.domain_event_broker import (
    DISCARD,
    LEAVE,
    RETRY,
    DomainEvent,
    Publisher,
    Retry,
    Subscriber,
    publish_domain_event,
    replay_all,
    replay_event,
    settings,
)
from tidings.compat.domain_event_broker._url import translated


@pytest.fixture
def queue(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name that nobody else uses, on the broker of the settings."""
    monkeypatch.setattr(settings, "BROKER", amqp_url)
    name = f"compat{uuid.uuid4().hex[:12]}"
    yield name
    channel = Subscriber().channel
    assert channel is not None
    for each in (name, f"{name}-dl"):
        channel.queue_delete(queue=each)


def consume(subscriber: Subscriber, until: int, seen: list[object]) -> None:
    """Consumes until so many were seen."""
    subscriber.start_consuming(timeout=20)
    assert len(seen) == until


def test_the_readme_example_of_growing_delays_runs_exactly_three_retries(queue: str) -> None:
    seen: list[int] = []

    def handler(event: DomainEvent) -> None:
        seen.append(event.retries)
        if len(seen) == 4:
            subscriber.stop_consuming()
        raise Retry(0.1 * 2.0**event.retries)

    subscriber = Subscriber()
    subscriber.register(handler, queue, [f"{queue}.*"], max_retries=3, dead_letter=True)
    publish_domain_event(f"{queue}.grown", {"n": 1})
    consume(subscriber, 4, seen)
    assert seen == [0, 1, 2, 3]
    assert replay_event(queue, lambda **message: LEAVE) == 0


def test_a_failure_without_dead_letter_drops_the_event(queue: str) -> None:
    seen: list[object] = []

    def handler(event: DomainEvent) -> None:
        seen.append(event.data)
        subscriber.stop_consuming()
        raise ValueError("no")

    subscriber = Subscriber()
    subscriber.register(handler, queue, [f"{queue}.*"])
    publish_domain_event(f"{queue}.one", {"n": 1})
    consume(subscriber, 1, seen)
    with pytest.raises(errors.TidingsError):
        replay_event(f"{queue}-nobody")


def test_replay_callbacks_get_what_pika_would_have_given_them(queue: str) -> None:
    seen: list[object] = []

    def handler(event: DomainEvent) -> None:
        seen.append(event)
        if len(seen) == 3:
            subscriber.stop_consuming()
        raise ValueError("no")

    subscriber = Subscriber()
    subscriber.register(handler, queue, [f"{queue}.*"], dead_letter=True)
    dead = [publish_domain_event(f"{queue}.one", {"n": n}) for n in range(3)]
    consume(subscriber, 3, seen)
    actions = iter([DISCARD, LEAVE, RETRY])
    messages: list[dict] = []

    def decide(frame: object, header: object, body: bytes) -> str:
        messages.append({"frame": frame, "header": header, "body": body})
        return next(actions)

    replay_all(queue, decide)
    assert [DomainEvent.from_json(one["body"]) for one in messages] == dead
    assert {one["frame"].routing_key for one in messages} == {f"{queue}.one"}
    assert messages[0]["header"].headers["tidings-dead-reason"] == "error"
    assert replay_all(queue, lambda **message: DISCARD) == 0


def test_an_action_that_is_none_raises_and_leaves_the_event(queue: str) -> None:
    def handler(event: DomainEvent) -> None:
        subscriber.stop_consuming()
        raise ValueError("no")

    subscriber = Subscriber()
    subscriber.register(handler, queue, [f"{queue}.*"], dead_letter=True)
    publish_domain_event(f"{queue}.one", {})
    subscriber.start_consuming(timeout=20)
    with pytest.raises(Exception, match="obliterate"):
        replay_event(queue, lambda **message: "obliterate")
    assert replay_event(queue, lambda **message: DISCARD) == 0


def test_bodies_that_are_no_events_travel_unchanged(queue: str) -> None:
    seen: list[object] = []

    def handler(event: DomainEvent) -> None:
        seen.append(event.data)
        subscriber.stop_consuming()

    subscriber = Subscriber()
    subscriber.register(handler, queue, [f"{queue}.*"], dead_letter=True)
    publisher = Publisher()
    publisher.publish("iamnotvalidjson[]", f"{queue}.bad")
    publisher.publish(DomainEvent(f"{queue}.good", {"n": 1}).to_json(), f"{queue}.good")
    publisher.disconnect()
    consume(subscriber, 1, seen)
    bodies: list[bytes] = []
    replay_event(queue, lambda body, **message: bodies.append(body) or DISCARD)
    assert bodies == [b"iamnotvalidjson[]"]


@pytest.mark.parametrize("kind", [{"exclusive": True}, {"auto_delete": True}, {"durable": False}])
def test_transient_queues(queue: str, kind: dict[str, bool]) -> None:
    seen: list[object] = []

    def handler(event: DomainEvent) -> None:
        seen.append(event.data)
        subscriber.stop_consuming()

    subscriber = Subscriber()
    subscriber.register(handler, queue, [f"{queue}.*"], **kind)
    publish_domain_event(f"{queue}.one", {"n": 1})
    subscriber.start_consuming(timeout=20)
    assert seen[0] == {"n": 1}


def test_none_disables_everything() -> None:
    event = publish_domain_event("user.registered", {"n": 1}, connection_settings=None)
    assert event.data == {"n": 1}
    subscriber = Subscriber(None)
    subscriber.register(print, "nobody", ["#"])
    subscriber.start_consuming()
    subscriber.stop_consuming()
    Publisher(None).publish("{}", "user.registered")
    assert subscriber.channel is None
    assert replay_event("nobody", connection_settings=None) == 0


def test_parameters_of_pikas_urls() -> None:
    url = "amqp://u:p%40ss@h:5673/%2F"
    assert translated(url) == url
    assert translated(f"{url}?heartbeat=1&frame_max=4096&connection_attempts=3") == f"{url}?heartbeat=1"
    assert translated(f"{url}?socket_timeout=0.25") == f"{url}?connection_timeout=250"
    assert translated(f"{url}?ssl_options=%7B%27ca_certs%27%3A%27%2Fca.pem%27%7D") == f"{url}?cacertfile=%2Fca.pem"
    with pytest.raises(ValueError, match="ciphers"):
        translated(f"{url}?ssl_options=%7B%27ciphers%27%3A1%7D")


def test_the_alias_is_the_same_modules(script: Callable) -> None:
    code, out, err = finish(
        script(
            """
            from tidings.compat import install_as_domain_event_broker
            install_as_domain_event_broker()
            install_as_domain_event_broker()
            import domain_event_broker
            import domain_event_broker.transport
            from domain_event_broker import settings
            import tidings.compat.domain_event_broker as ours
            assert domain_event_broker is ours
            assert domain_event_broker.transport.Publisher is ours.Publisher
            assert settings is ours.settings
            assert ours.__spec__.name == "tidings.compat.domain_event_broker"
            try:
                import domain_event_broker.nothing
            except ModuleNotFoundError as error:
                print(error)
            """
        )
    )
    assert (code, err) == (0, "")
    assert "domain_event_broker.nothing" in out


def test_installing_after_the_other_library_is_refused(script: Callable) -> None:
    code, _, err = finish(
        script(
            """
            import sys, types
            sys.modules["domain_event_broker"] = types.ModuleType("domain_event_broker")
            sys.modules["domain_event_broker"].__file__ = "elsewhere.py"
            from tidings.compat import install_as_domain_event_broker
            install_as_domain_event_broker()
            """
        )
    )
    assert code == 1
    assert "elsewhere.py" in err

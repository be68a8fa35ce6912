"""Handlers on threads, on every broker."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

from tidings import (
    DeadLetter,
    Discard,
    DomainEvent,
    Publisher,
    Retry,
    RetryPolicy,
    Subscriber,
    _native,
    dead_letters,
    errors,
    publish_domain_event,
)


class Seen:
    """Collects events and stops the subscriber at the wanted number."""

    def __init__(self, subscriber: Subscriber, count: int) -> None:
        self.subscriber, self.count = subscriber, count
        self.events: list[DomainEvent[Any]] = []
        self.lock = threading.Lock()

    def add(self, event: DomainEvent[Any]) -> None:
        with self.lock:
            self.events.append(event)
            if len(self.events) >= self.count:
                self.subscriber.stop_consuming()


def publish(url: str, name: str, *data: Any) -> None:
    with Publisher(url) as publisher:
        publisher.publish_batch(DomainEvent(f"{name}.x", one) for one in data)


def metric(subscriber: Subscriber, wanted: str) -> float:
    return sum(value for name, _, _, value in subscriber.metrics() if name == wanted)


def test_retries_then_dead_letters(url: str, broker: _native.Broker, name: str) -> None:
    subscriber = Subscriber(url)
    seen = Seen(subscriber, 3)

    def handler(event: DomainEvent[Any]) -> None:
        seen.add(event)
        raise Retry(0.1, "not yet")

    subscriber.register(handler, name, f"{name}.#", max_retries=2)
    subscriber.declare()
    publish(url, name, {"n": 1})
    subscriber.start_consuming(timeout=20)
    assert [event.retries for event in seen.events] == [0, 1, 2]
    (entry,) = dead_letters(name, url)
    assert (entry.reason, entry.attempts, entry.error) == ("max-retries", 3, "not yet")
    assert entry.event == seen.events[0]
    subscriber.close()


def test_a_request_that_makes_no_sense_is_a_failure_of_the_handler(file_url: str) -> None:
    subscriber = Subscriber(file_url)

    @subscriber.handle("a.#", name="s", max_retries=5)
    def handler(event: DomainEvent[Any]) -> None:
        subscriber.stop_consuming()
        raise Retry("soon")  # type: ignore[arg-type]

    subscriber.declare()
    publish(file_url, "a", {})
    subscriber.start_consuming(timeout=20)
    (entry,) = dead_letters("s", file_url)
    assert (entry.error_type, entry.error) == (
        "TypeError",
        "delay must be a number of seconds or a timedelta, not str",
    )


def test_causes_that_go_in_circles_are_a_failure(file_url: str) -> None:
    subscriber = Subscriber(file_url)

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        subscriber.stop_consuming()
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    subscriber.declare()
    publish(file_url, "a", {})
    subscriber.start_consuming(timeout=20)
    (entry,) = dead_letters("s", file_url)
    assert (entry.error_type, entry.error) == ("ValueError", "first")


class OuterError(Exception):
    pass


class InnerError(OuterError):
    pass


def test_errors_keep_types_message_and_stack(url: str, broker: _native.Broker, name: str) -> None:
    subscriber = Subscriber(url)

    @subscriber.handle(f"{name}.#", name=name)
    def broken(event: DomainEvent[Any]) -> None:
        subscriber.stop_consuming()
        raise InnerError("the gateway is down")

    subscriber.declare()
    publish(url, name, {})
    subscriber.start_consuming(timeout=20)
    (entry,) = dead_letters(name, url)
    assert (entry.reason, entry.error_type, entry.error) == ("error", "InnerError", "the gateway is down")
    assert entry.stack
    assert "in broken" in entry.stack
    subscriber.close()


@pytest.mark.parametrize(
    "retry_on", [[OuterError], ["OuterError"], ["InnerError"], [f"{__name__}.OuterError"]], ids=str
)
def test_policies_know_classes_and_their_bases(file_url: str, retry_on: list[Any]) -> None:
    subscriber = Subscriber(file_url)
    seen = Seen(subscriber, 2)

    @subscriber.handle("a.#", name="s", retry=RetryPolicy.fixed(1, 0, retry_on=retry_on))
    def broken(event: DomainEvent[Any]) -> None:
        seen.add(event)
        raise InnerError

    subscriber.declare()
    publish(file_url, "a", {})
    subscriber.start_consuming(timeout=10)
    assert [event.retries for event in seen.events] == [0, 1]


def test_a_policy_gives_up(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    seen = Seen(subscriber, 1)

    @subscriber.handle("a.#", name="s", retry=RetryPolicy.fixed(5, 0, give_up_on=[OuterError]))
    def broken(event: DomainEvent[Any]) -> None:
        seen.add(event)
        raise InnerError

    subscriber.declare()
    publish(file_url, "a", {})
    subscriber.start_consuming(timeout=10)
    assert dead_letters("s", file_url)[0].reason == "error"


def test_handlers_say_what_becomes_of_an_event(url: str, broker: _native.Broker, name: str) -> None:
    subscriber = Subscriber(url)
    seen = Seen(subscriber, 3)

    @subscriber.handle(f"{name}.#", name=name)
    def handler(event: DomainEvent[Any]) -> None:
        seen.add(event)
        if event.data == "dead":
            raise DeadLetter("no-address", "really none")
        if event.data == "chained":
            raise ValueError from DeadLetter("chained")
        raise Discard

    subscriber.declare()
    publish(url, name, "dead", "chained", "drop")
    subscriber.start_consuming(timeout=20)
    entries = dead_letters(name, url)
    assert sorted((entry.reason, entry.error) for entry in entries) == [
        ("chained", None),
        ("no-address", "really none"),
    ]
    assert metric(subscriber, "tidings_discarded_total") == 1
    assert metric(subscriber, "tidings_handled_total") == 3
    subscriber.close()


def test_one_at_a_time_on_the_calling_thread(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    threads: set[int] = set()
    seen = Seen(subscriber, 20)

    def handler(event: DomainEvent[Any]) -> None:
        threads.add(threading.get_ident())
        seen.add(event)

    subscriber.register(handler, "one", "a.#")
    subscriber.register(handler, "two", "a.#")
    subscriber.declare()
    publish(file_url, "a", *range(10))
    subscriber.start_consuming(timeout=10)
    assert threads == {threading.get_ident()}
    assert len(seen.events) == 20


def test_a_pool_runs_so_many_at_once(url: str, broker: _native.Broker, name: str) -> None:
    subscriber = Subscriber(url)
    together = threading.Barrier(4, timeout=20)
    seen = Seen(subscriber, 8)

    @subscriber.handle(f"{name}.#", name=name, concurrency=4)
    def handler(event: DomainEvent[Any]) -> None:
        together.wait()
        assert threading.current_thread() is not threading.main_thread()
        seen.add(event)

    subscriber.declare()
    publish(url, name, *range(8))
    subscriber.start_consuming(timeout=20)
    assert sorted(event.data for event in seen.events) == list(range(8))
    subscriber.close()


def test_order_is_kept_per_key(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    seen = Seen(subscriber, 40)

    @subscriber.handle("a.#", name="s", concurrency=8, ordered=True)
    def handler(event: DomainEvent[Any]) -> None:
        seen.add(event)

    subscriber.declare()
    with Publisher(file_url) as publisher:
        publisher.publish_batch(DomainEvent("a.b", n, key=f"k{n % 4}") for n in range(40))
    subscriber.start_consuming(timeout=20)
    for key in range(4):
        of_key = [event.data for event in seen.events if event.data % 4 == key]
        assert of_key == sorted(of_key)


def test_what_a_handler_sets_in_its_context_is_not_there_for_the_next(file_url: str) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(1)
    subscriber = Subscriber(file_url)
    seen = Seen(subscriber, 3)
    found: list[int] = []

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        found.append(variable.get())
        variable.set(2)
        seen.add(event)

    subscriber.declare()
    publish(file_url, "a", 1, 2, 3)
    subscriber.start_consuming(timeout=10)
    assert found == [1, 1, 1]


def test_middleware_sees_the_event_and_what_the_handler_raises(file_url: str) -> None:
    calls: list[str] = []

    def outer(event: DomainEvent[Any], call: Any) -> Any:
        try:
            return call(event)
        except ValueError:
            calls.append("swallowed")

    def inner(event: DomainEvent[Any], call: Any) -> Any:
        calls.append(event.routing_key)
        return call(event)

    subscriber = Subscriber(file_url, middleware=[outer])
    subscriber.add_middleware(inner)

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        subscriber.stop_consuming()
        raise ValueError

    subscriber.declare()
    publish(file_url, "a", 1)
    subscriber.start_consuming(timeout=10)
    assert calls == ["a.x", "swallowed"]
    assert dead_letters("s", file_url) == []


def test_a_slow_thread_times_out_when_it_returns(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    release = threading.Event()

    @subscriber.handle("a.#", name="s", timeout=0.01)
    def handler(event: DomainEvent[Any]) -> None:
        release.wait(0.05)
        subscriber.stop_consuming()

    subscriber.declare()
    publish(file_url, "a", 1)
    subscriber.start_consuming(timeout=10)
    (entry,) = dead_letters("s", file_url)
    assert (entry.reason, entry.error_type) == ("timeout", "Timeout")


def test_stop_gives_back_what_is_not_begun(file_url: str) -> None:
    first, second = Subscriber(file_url), Subscriber(file_url)
    seen = Seen(first, 1)
    rest = Seen(second, 99)
    first.register(seen.add, "s", "a.#")
    second.register(rest.add, "s", "a.#")
    first.declare()
    publish(file_url, "a", *range(100))
    first.start_consuming(timeout=10)
    assert len(seen.events) == 1
    second.start_consuming(timeout=10)
    assert len(rest.events) == 99
    assert {event.retries for event in rest.events} == {0}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"handler": lambda: None}, TypeError, "must take one argument"),
        ({"handler": 7}, TypeError, "must be callable"),
        ({"name": None}, errors.InvalidNameError, "lambda"),
        ({"name": "a b"}, errors.InvalidNameError, "name"),
        ({"name": "x-dl"}, errors.InvalidNameError, "-dl"),
        ({"binding_keys": "user.*x"}, errors.InvalidBindingKeyError, "wildcard"),
        ({"binding_keys": []}, errors.InvalidBindingKeyError, "no binding key"),
        ({"max_retries": 3, "retry": RetryPolicy.fixed(3, 1)}, errors.InvalidOptionError, "two limits of retries"),
        ({"max_retries": -1}, TypeError, "max_retries"),
        ({"concurrency": 0}, errors.InvalidOptionError, "concurrency"),
        ({"concurrency": 50, "prefetch": 10}, errors.InvalidOptionError, "prefetch"),
        ({"partitions": 8}, errors.InvalidOptionError, "partitions"),
        ({"ordered": True, "partitions": 65}, errors.InvalidOptionError, "partitions"),
        ({"ordered": True, "max_parked": 0}, errors.InvalidOptionError, "max_parked"),
        ({"queue_type": "mirrored"}, TypeError, '"quorum", "classic"'),
        ({"timeout": 0}, errors.InvalidOptionError, "timeout"),
        ({"retry": 3}, TypeError, "retry"),
        ({"model": 3}, TypeError, "model"),
    ],
    ids=str,
)
def test_newcomers_errors_come_at_once_and_read_well(arguments: dict[str, Any], error: Any, words: str) -> None:
    given = {"handler": lambda event: None, "name": "s", "binding_keys": ["a.#"], **arguments}
    with pytest.raises(error) as caught:
        Subscriber("memory:").register(**given)
    assert words in str(caught.value)


def test_more_mistakes() -> None:
    subscriber = Subscriber("memory:")
    with pytest.raises(TypeError, match="no setting 'retrys'"):
        subscriber.handle("a.#", retrys=3)
    with pytest.raises(TypeError, match="handle"):
        subscriber.handle(lambda event: None)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidOptionError, match="no handler"):
        subscriber.start_consuming()

    @subscriber.handle("a.#")
    def billing(event: DomainEvent[Any]) -> None: ...

    assert subscriber.subscriptions == ["billing"]
    with pytest.raises(errors.SubscriptionConflictError):
        subscriber.register(billing, "billing", ["b.#"])

    async def coroutine(event: DomainEvent[Any]) -> None: ...

    with pytest.raises(TypeError, match=r"tidings\.aio\.Subscriber"):
        subscriber.register(coroutine, "s", ["a.#"])
    with pytest.raises(TypeError, match="URL or None"):
        Subscriber(7)  # type: ignore[arg-type]


def test_a_coroutine_by_mistake_says_so(file_url: str) -> None:
    async def asynchronous(event: DomainEvent[Any]) -> None: ...

    subscriber = Subscriber(file_url)

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> Any:
        subscriber.stop_consuming()
        return asynchronous(event)

    subscriber.declare()
    publish(file_url, "a", 1)
    subscriber.start_consuming(timeout=10)
    (entry,) = dead_letters("s", file_url)
    assert entry.error_type == "TypeError"
    assert "returned a coroutine" in (entry.error or "")


def test_system_exit_in_a_handler_fails_the_event_and_ends_the_consumer(file_url: str) -> None:
    for concurrency in (1, 2):
        subscriber = Subscriber(file_url)
        name = f"s{concurrency}"

        def handler(event: DomainEvent[Any]) -> None:
            raise SystemExit(3)

        subscriber.register(handler, name, "a.#", concurrency=concurrency)
        subscriber.declare()
        publish(file_url, "a", 1)
        with pytest.raises(SystemExit) as caught:
            subscriber.start_consuming(timeout=10)
        assert caught.value.code == 3
        (entry,) = dead_letters(name, file_url)
        assert entry.error_type == "SystemExit"


def test_keyboard_interrupt_in_a_handler_releases_the_event(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    seen: list[Any] = []

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        seen.append(event.retries)
        if len(seen) == 1:
            raise KeyboardInterrupt
        subscriber.stop_consuming()

    subscriber.declare()
    publish_domain_event("a.x", 1, connection_settings=file_url)
    with pytest.raises(KeyboardInterrupt):
        subscriber.start_consuming(timeout=10)
    subscriber.start_consuming(timeout=10)
    assert seen == [0, 0]
    assert dead_letters("s", file_url) == []

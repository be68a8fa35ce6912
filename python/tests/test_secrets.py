"""No password of a URL is in what the package says: errors with tracebacks, `repr`, logs, warnings, health, metrics."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import threading
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tidings import Publisher, Subscriber, _native, aio, dead_letters, errors, publish_domain_event, replay_all

CANARY = "c4n4ryS3cret"
SERVICES = Path(__file__).parents[2] / "tests/services"
WRONG = [
    f"amqp://me:{CANARY}@127.0.0.1:1",
    f"amqp://me:{CANARY}@127.0.0.1:1/v?frobnicate=1",
    f"amqps://me:{CANARY}@127.0.0.1:1?cacertfile=/none",
    f"amqp://me:{CANARY}@127.0.0.1/a/b",
    f"amqp://127.0.0.1:1?password={CANARY}",
    f"gopher://me:{CANARY}@127.0.0.1",
    f"amqp:me:{CANARY}@127.0.0.1",
    f"me:{CANARY}@127.0.0.1",
    f"sqlite:/none/such.db?password={CANARY}",
]
Say = Callable[..., None]


def described(error: BaseException | None) -> str:
    """All that a program or a log can show of an error, and of what caused it."""
    if error is None:
        return ""
    shown = [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    if isinstance(error, errors.TidingsError):
        shown += [repr((error.field, error.value, error.remedy)), repr(pickle.dumps(error))]
    return "\n".join([*shown, described(error.__cause__)])


class Log(logging.Handler):
    """Every record with all that it carries."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {vars(record)!r}")


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Takes down what is shown. At the end the password must be nowhere: not there, in no log, warning or output."""
    root, log = logging.getLogger(), Log()
    level, shown = root.level, list[str]()
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield lambda *values: shown.extend(one if isinstance(one, str) else repr(one) for one in values)
    root.removeHandler(log)
    root.setLevel(level)
    everything = [*shown, *log.lines, *(str(one.message) for one in warned), *capfd.readouterr()]
    assert shown, "nothing was looked at"
    assert [line for line in everything if CANARY in line] == []


def uses(url: str) -> list[Callable[[], Any]]:
    """Whatever takes a URL, and reaches for its broker."""

    def consume() -> None:
        subscriber = Subscriber(url)
        subscriber.register(lambda event: None, "s", "a.#")
        subscriber.start_consuming(timeout=0.1)

    return [
        lambda: Publisher(url).publish("a.b", {}),
        lambda: publish_domain_event("a.b", {}, connection_settings=url),
        lambda: dead_letters("s", url),
        lambda: replay_all("s", connection_settings=url),
        lambda: _native.Broker.connect(url),
        consume,
    ]


@pytest.mark.parametrize("url", WRONG)
def test_a_broker_that_cannot_be_reached(url: str, say: Say) -> None:
    for use in uses(url):
        with pytest.raises(errors.TidingsError) as caught:
            use()
        say(described(caught.value))


async def publish(url: str) -> None:
    async with aio.Publisher(url) as publisher:
        await publisher.publish("a.b", {})


@pytest.mark.parametrize("url", WRONG)
def test_a_broker_that_cannot_be_reached_from_a_loop(url: str, say: Say) -> None:
    with pytest.raises(errors.TidingsError) as caught:
        asyncio.run(publish(url))
    say(described(caught.value))


@pytest.fixture
def guarded(amqp_url: str) -> Iterator[str]:
    """The URL of a RabbitMQ that knows us by the password that is looked for."""
    user = f"canary-{uuid.uuid4().hex}"

    def ctl(*arguments: str) -> None:
        done = subprocess.run([SERVICES, "ctl", "rabbitmq3", *arguments], capture_output=True, text=True, check=False)
        if done.returncode == 3:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr

    ctl("add_user", user, CANARY)
    try:
        ctl("set_permissions", user, ".*", ".*", ".*")
        host = urlsplit(amqp_url)
        yield amqp_url.replace(host.netloc, f"{user}:{CANARY}@{host.hostname}:{host.port or 5672}")
    finally:
        ctl("delete_user", user)


def test_a_broker_that_works(guarded: str, say: Say) -> None:
    """Handlers fail, and the dead letter, health, metrics and logs say all that they know."""
    broker, name = _native.Broker.connect(guarded), f"secrets-{uuid.uuid4().hex}"
    publisher, subscriber = Publisher(guarded), Subscriber(guarded)
    failed = threading.Event()

    @subscriber.handle(f"{name}.#", name=name)
    def handler(event: Any) -> None:
        say(event, event.headers, subscriber.health(), subscriber.metrics())
        failed.set()
        raise RuntimeError("it does not work")

    thread = threading.Thread(target=subscriber.start_consuming, kwargs={"timeout": 30})
    subscriber.declare()
    thread.start()
    say(publisher.publish(f"{name}.a", {}))
    assert failed.wait(30)
    subscriber.stop_consuming()
    thread.join()
    say(broker, publisher, subscriber, broker.subscriptions(), publisher.metrics(), dead_letters(name, guarded))
    with pytest.raises(errors.TidingsError) as caught:
        replay_all(f"{name}-none", connection_settings=guarded)
    say(described(caught.value))
    broker.delete_subscription(name)
    subscriber.close()
    publisher.close()
    broker.close()
    with pytest.raises(errors.TidingsError) as caught:
        broker.subscriptions()
    say(described(caught.value))

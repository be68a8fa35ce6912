"""domain-event-broker 3.0.2, the real one: a subscriber in a thread, and a look at its queues."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pika
import pika.exceptions
from domain_event_broker import DomainEvent, Subscriber

Handler = Callable[[DomainEvent], None]
TIMEOUT = 30.0


class Peer:
    """A subscriber of the peer that is consuming. What its handler gets is in `seen`."""

    def __init__(self, subscriber: Subscriber, seen: queue.Queue[DomainEvent]) -> None:
        self._subscriber = subscriber
        self._seen = seen

    def event(self, timeout: float = TIMEOUT) -> DomainEvent:
        """The next event that its handler got."""
        return self._seen.get(timeout=timeout)

    def empty(self) -> bool:
        """Whether its handler got nothing since the last look."""
        return self._seen.empty()

    def events(self, count: int, timeout: float = TIMEOUT) -> list[DomainEvent]:
        """The next `count` events that its handler got."""
        return [self.event(timeout) for _ in range(count)]


@contextmanager
def consuming(
    url: str,
    name: str,
    binding: str,
    handler: Handler | None = None,
    *,
    dead_letter: bool = True,
    max_retries: int = 0,
) -> Iterator[Peer]:
    """Registers a handler with the peer and consumes in a thread until the block ends."""
    seen: queue.Queue[DomainEvent] = queue.Queue()

    def handle(event: DomainEvent) -> None:
        seen.put(event)
        if handler:
            handler(event)

    subscriber = Subscriber(url)
    subscriber.register(handle, name, [binding], dead_letter=dead_letter, max_retries=max_retries)
    thread = threading.Thread(target=subscriber.start_consuming)
    thread.start()
    try:
        yield Peer(subscriber, seen)
    finally:
        connection, channel = subscriber.connection, subscriber.channel
        if thread.is_alive() and connection is not None and channel is not None:
            # It is not thread-safe: its own thread must stop it.
            connection.add_callback_threadsafe(channel.stop_consuming)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        subscriber.workers.shutdown()
        if connection is not None and connection.is_open:
            # Acknowledgements that its worker left behind.
            connection.process_data_events(0)
            connection.close()


@contextmanager
def channel(url: str) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    """A plain channel, for looking and cleaning up."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def wait_for_depth(url: str, queue_name: str, depth: int) -> None:
    """Returns once so many messages are ready in a queue, which need not exist yet."""
    deadline = time.monotonic() + TIMEOUT
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        look = connection.channel()
        found = -1
        while found != depth:
            assert time.monotonic() < deadline, f"{queue_name} has {found} messages, not {depth}"
            try:
                found = look.queue_declare(queue_name, passive=True).method.message_count
            except pika.exceptions.ChannelClosedByBroker:
                look = connection.channel()
            connection.process_data_events(0.02)
    finally:
        connection.close()


def clean_up(url: str, name: str) -> None:
    """Deletes everything that either side declared for a subscription."""
    with channel(url) as look:
        for suffix in ("", "-dl"):
            look.queue_delete(name + suffix)
        for suffix in ("-retry", "-dlx"):
            look.exchange_delete(name + suffix)

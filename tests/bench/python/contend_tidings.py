"""Tidings on threads, as its guide shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from contender import EXCHANGE, ROUTING_KEY, Watch, payload

from tidings import DomainEvent, Publisher, Subscriber, publish_domain_event


def event(n: int) -> DomainEvent[Any]:
    return DomainEvent(ROUTING_KEY, payload(n), str(n))


class OneByOne:
    """`publish_domain_event`, one after the other: each returns when the broker has confirmed."""

    url: str

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        publish_domain_event(ROUTING_KEY, payload(0), "0", connection_settings=self.url, exchange=EXCHANGE)
        watch.begin()
        for n in range(count):
            publish_domain_event(ROUTING_KEY, payload(n), str(n), connection_settings=self.url, exchange=EXCHANGE)
        watch.end()


class Threads:
    """`publish_batch` on a few threads: there is always something under way; handlers on the thread that consumes."""

    url: str
    publishers = 4

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        size = in_flight // self.publishers
        with Publisher(self.url, exchange=EXCHANGE) as publisher, ThreadPoolExecutor(self.publishers) as pool:
            publisher.publish(event(0))

            def publish(start: int) -> None:
                for result in publisher.publish_batch(event(n) for n in range(start, min(count, start + size))):
                    if isinstance(result, Exception):
                        raise result

            watch.begin()
            for _ in pool.map(publish, range(0, count, size)):
                pass
            watch.end()

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        subscriber = Subscriber(self.url, exchange=EXCHANGE)

        def handler(event: DomainEvent[Any]) -> None:
            if watch.saw(event.data):
                subscriber.stop_consuming()

        subscriber.register(handler, queue, "#", prefetch=prefetch, queue_type="classic" if classic else "quorum")
        subscriber.start_consuming()
        subscriber.close()


CONTENDERS = {"one": OneByOne, "threads": Threads}

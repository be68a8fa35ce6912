"""Durable queues in a file: Tidings one event at a time and in batches, and litequeue.

litequeue opens its file with synchronous=NORMAL; Tidings is told to by its URL. litequeue keeps what is done, marked.
"""

from __future__ import annotations

import json
from typing import Any

from contend_blocking import body
from contender import EXCHANGE, ROUTING_KEY, Watch, payload

from tidings import DomainEvent, Publisher, Subscriber

BATCH = 100


def event(n: int) -> DomainEvent[Any]:
    return DomainEvent(ROUTING_KEY, payload(n), str(n))


class Tidings:
    """In batches of 100 if that many may be in flight, else one after the other, each durable when the call returns."""

    url: str

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        with Publisher(self.url, exchange=EXCHANGE) as publisher:
            watch.begin()
            if in_flight == 1:
                for n in range(count):
                    publisher.publish(event(n))
            for start in range(0, count if in_flight > 1 else 0, BATCH):
                for result in publisher.publish_batch(event(n) for n in range(start, start + BATCH)):
                    if isinstance(result, Exception):
                        raise result
            watch.end()

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        subscriber = Subscriber(self.url, exchange=EXCHANGE)

        def handler(event: DomainEvent[Any]) -> None:
            if watch.saw(event.data):
                subscriber.stop_consuming()

        subscriber.register(handler, queue, "#", prefetch=prefetch)
        subscriber.start_consuming()
        subscriber.close()


class LiteQueue:
    """`put`, which commits each message; `pop` and `done`."""

    url: str

    def queue(self) -> Any:
        from litequeue import LiteQueue

        path = self.url.removeprefix("sqlite:").split("?")[0]
        return LiteQueue(f"{path}-litequeue")

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        queue = self.queue()
        watch.begin()
        for n in range(count):
            queue.put(json.dumps(body(n)))
        watch.end()
        queue.close()

    def consume(self, name: str, prefetch: int, classic: bool, watch: Watch) -> None:
        queue = self.queue()
        last = False
        while not last:
            message = queue.pop()
            last = watch.saw(json.loads(message.data)["data"])
            queue.done(message.message_id)
        queue.close()


CONTENDERS = {"tidings": Tidings, "litequeue": LiteQueue}

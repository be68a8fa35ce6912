"""Tidings in asyncio, as its guide shows it."""

from __future__ import annotations

import asyncio
from typing import Any

from contender import EXCHANGE, ROUTING_KEY, Watch, payload

from tidings import DomainEvent, aio


def event(n: int) -> DomainEvent[Any]:
    return DomainEvent(ROUTING_KEY, payload(n), str(n))


def on_uvloop(main: Any) -> None:
    import uvloop

    uvloop.run(main)


class Loop:
    """`await publisher.publish` in 1,000 tasks; handlers on the loop."""

    url: str
    run = staticmethod(asyncio.run)
    concurrency = 1

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        self.run(self._publish(count, in_flight, watch))

    async def _publish(self, count: int, in_flight: int, watch: Watch) -> None:
        async with aio.Publisher(self.url, exchange=EXCHANGE) as publisher:
            await publisher.publish(event(0))
            numbers = iter(range(count))

            async def publish() -> None:
                for n in numbers:
                    await publisher.publish(event(n))

            watch.begin()
            await asyncio.gather(*(publish() for _ in range(in_flight)))
            watch.end()

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        self.run(self._consume(queue, prefetch, classic, watch))

    async def _consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        subscriber = aio.Subscriber(self.url, exchange=EXCHANGE)

        async def handler(event: DomainEvent[Any]) -> None:
            if watch.saw(event.data):
                subscriber.stop_consuming()

        kind: Any = "classic" if classic else "quorum"
        subscriber.register(handler, queue, "#", prefetch=prefetch, queue_type=kind, concurrency=self.concurrency)
        await subscriber.start_consuming()
        await subscriber.close()


class Uvloop(Loop):
    run = staticmethod(on_uvloop)


class Many(Uvloop):
    """As many handlers at once as aio-pika runs: all that are fetched."""

    concurrency = 100


CONTENDERS = {"loop": Loop, "uvloop": Uvloop, "many": Many}

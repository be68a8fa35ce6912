"""aio-pika and faststream on uvloop."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from typing import Any

import aio_pika
import uvloop
from contender import EXCHANGE, ROUTING_KEY, Watch, payload


def body(n: int) -> bytes:
    """The five keys."""
    return json.dumps(
        {
            "routing_key": ROUTING_KEY,
            "data": payload(n),
            "domain_object_id": str(n),
            "uuid_string": str(uuid.uuid4()),
            "timestamp": time.time(),
        }
    ).encode()


class AioPika:
    url: str

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        uvloop.run(self._publish(count, in_flight, watch))

    async def _publish(self, count: int, in_flight: int, watch: Watch) -> None:
        connection = await aio_pika.connect_robust(self.url)
        channel = await connection.channel()
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        numbers = iter(range(count))

        async def publish() -> None:
            for n in numbers:
                message = aio_pika.Message(body(n), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, ROUTING_KEY)

        watch.begin()
        await asyncio.gather(*(publish() for _ in range(in_flight)))
        watch.end()
        await connection.close()

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        uvloop.run(self._consume(queue, prefetch, watch))

    async def _consume(self, queue: str, prefetch: int, watch: Watch) -> None:
        connection = await aio_pika.connect_robust(self.url)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        source = await channel.get_queue(queue, ensure=False)
        last = asyncio.Event()

        async def handler(message: Any) -> None:
            if watch.saw(json.loads(message.body)["data"]):
                last.set()
            await message.ack()

        await source.consume(handler)
        await last.wait()
        await connection.close()


class FastStream:
    url: str

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        uvloop.run(self._consume(queue, prefetch, classic, watch))

    async def _consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        from faststream import FastStream as App
        from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

        broker = RabbitBroker(self.url, default_channel=Channel(prefetch_count=prefetch), logger=None)
        app = App(broker, logger=None)
        kind = QueueType.CLASSIC if classic else QueueType.QUORUM
        source = RabbitQueue(queue, queue_type=kind, declare=False)

        @broker.subscriber(source)
        async def handler(message: dict[str, Any]) -> None:
            if watch.saw(message["data"]):
                app.exit()

        await app.run()
        signal.signal(signal.SIGINT, signal.default_int_handler)


CONTENDERS = {"aio-pika": AioPika, "faststream": FastStream}

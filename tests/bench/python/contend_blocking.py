"""pika and kombu: the blocking libraries."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from contender import EXCHANGE, ROUTING_KEY, Watch, payload


def body(n: int) -> dict[str, Any]:
    """The five keys."""
    return {
        "routing_key": ROUTING_KEY,
        "data": payload(n),
        "domain_object_id": str(n),
        "uuid_string": str(uuid.uuid4()),
        "timestamp": time.time(),
    }


class Pika:
    url: str

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=2)
        watch.begin()
        for n in range(count):
            channel.basic_publish(EXCHANGE, ROUTING_KEY, json.dumps(body(n)), properties)
        watch.end()
        connection.close()

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()
        channel.basic_qos(prefetch_count=prefetch)

        def handler(channel: Any, frame: Any, header: Any, body: bytes) -> None:
            last = watch.saw(json.loads(body)["data"])
            channel.basic_ack(frame.delivery_tag)
            if last:
                channel.stop_consuming()

        channel.basic_consume(queue, handler)
        channel.start_consuming()
        connection.close()


class Kombu:
    url: str

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        import kombu
        from kombu.mixins import ConsumerMixin

        class Worker(ConsumerMixin):
            """The consumer of kombu's guide."""

            def __init__(self, connection: Any) -> None:
                self.connection = connection

            def get_consumers(self, make: Any, channel: Any) -> list[Any]:
                source = kombu.Queue(queue, no_declare=True)
                return [make([source], on_message=self.handle, prefetch_count=prefetch)]

            def handle(self, message: Any) -> None:
                last = watch.saw(json.loads(message.body)["data"])
                message.ack()
                if last:
                    self.should_stop = True

        with kombu.Connection(self.url) as connection:
            Worker(connection).run()


CONTENDERS = {"pika": Pika, "kombu": Kombu}

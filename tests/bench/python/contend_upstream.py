"""domain-event-broker, as its README shows it."""

from __future__ import annotations

from contender import EXCHANGE, ROUTING_KEY, Watch, payload
from domain_event_broker import DomainEvent, Subscriber, publish_domain_event


class Upstream:
    url: str

    def publish(self, count: int, in_flight: int, watch: Watch) -> None:
        # To its default exchange, which the rig binds as well.
        for n in range(count):
            publish_domain_event(ROUTING_KEY, payload(n), str(n), connection_settings=self.url)
        watch.end()

    def consume(self, queue: str, prefetch: int, classic: bool, watch: Watch) -> None:
        subscriber = Subscriber(self.url, exchange=EXCHANGE)

        def handler(event: DomainEvent) -> None:
            if watch.saw(event.data):
                # On the thread of the connection; the last event stays unacknowledged.
                subscriber.connection.add_callback_threadsafe(subscriber.stop_consuming)

        subscriber.register(handler, queue, ["#"])
        subscriber.start_consuming()


CONTENDERS = {"": Upstream}

"""Publishing and subscribing, with the names and defaults of domain-event-broker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tidings import controls
from tidings import subscriber as native
from tidings._connection import check_settings, shared_publisher

from . import settings
from ._channel import Channel
from ._url import translated
from .events import DomainEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Publisher", "Retry", "Subscriber", "Transport", "publish_domain_event"]

log = logging.getLogger("tidings")


class Retry(controls.Retry):
    """Raise it in a handler to handle the event again after `delay` seconds, at most `max_retries` times."""

    def __init__(self, delay: float = 10.0) -> None:
        super().__init__(delay)


def publish_domain_event(
    routing_key: str,
    data: Any,
    domain_object_id: str | None = None,
    uuid_string: str | None = None,
    timestamp: float | None = None,
    connection_settings: str | None = "",
) -> DomainEvent[Any]:
    """Publishes an event and waits for the broker's confirm. The connection is kept, one for each process.

    Args:
        routing_key: `<DOMAIN>.<EVENT_TYPE>`.
        data: Anything with a JSON form.
        domain_object_id: Identifier of the entity.
        uuid_string: The event's id. Default: a new one.
        timestamp: Seconds since the Unix epoch. Default: now.
        connection_settings: The broker's URL. Default: `settings.BROKER`. `None`: nothing is sent.

    Returns:
        The event.
    """
    event = DomainEvent(routing_key, data, domain_object_id, uuid_string, timestamp)
    publisher = Publisher(connection_settings)
    publisher.publish(event.to_json(), event.routing_key)
    publisher.disconnect()
    return event


class Transport:
    """A broker's URL and an exchange."""

    def __init__(
        self, connection_settings: str | None = "", exchange: str = "domain-events", exchange_type: str = "topic"
    ) -> None:
        self.exchange = exchange
        self.exchange_type = exchange_type
        self.connection_settings = settings.BROKER if connection_settings == "" else connection_settings
        url = check_settings(self.connection_settings, exchange_type)
        self._url = None if url is None else translated(url)

    def connect(self) -> None:
        """Does nothing: the broker is reached when it is first needed."""

    def disconnect(self) -> None:
        """Lets go of what belongs to this object alone."""

    @property
    def channel(self) -> Channel | None:
        """Deletes queues by name; None where no broker is configured."""
        return None if self._url is None else Channel(self._url)

    def _disabled(self, method: str) -> bool:
        if self._url is None:
            log.debug("No broker configured: %s.%s() is deactivated.", type(self).__name__, method)
        return self._url is None


class Publisher(Transport):
    """Publishes what is encoded already."""

    def publish(self, message: str | bytes, routing_key: str = "") -> None:
        """Sends a message, byte for byte, and waits for the broker's confirm.

        Raises:
            tidings.TidingsError: It was refused, or not confirmed in time.
        """
        if self._url is None:
            self._disabled("publish")
            return
        body = message.encode() if isinstance(message, str) else message
        shared_publisher(self._url, self.exchange).publish_encoded(routing_key, body)


class Subscriber(Transport):
    """Handles the events of named queues, one event at a time over all of them."""

    def __init__(
        self, connection_settings: str | None = "", exchange: str = "domain-events", exchange_type: str = "topic"
    ) -> None:
        super().__init__(connection_settings, exchange, exchange_type)
        self._subscriber = native.Subscriber(self._url, exchange, exchange_type)

    def register(
        self,
        handler: Callable[[DomainEvent[Any]], Any],
        name: str,
        binding_keys: Iterable[str],
        dead_letter: bool = False,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        max_retries: int = 0,
    ) -> None:
        """Declares the queue, which collects events from now on, and handles them once `start_consuming` is called.

        Args:
            handler: Called with the event. `Retry` schedules it again; any other exception gives up on it.
            name: Name of the queue.
            binding_keys: Which events it wants: `*` is exactly one word, `#` zero or more.
            dead_letter: Whether events that were given up on are kept.
            durable: The queue outlives the broker.
            exclusive: Only this subscriber may use the queue, which goes with it.
            auto_delete: The queue goes with its last consumer, this subscriber from now on.
            max_retries: Most retries of one event.

        Raises:
            tidings.TidingsError: The queue is there with other arguments, a name is not valid, …
        """
        if self._disabled("register"):
            return
        self._subscriber.register(
            handler,
            name,
            binding_keys,
            dead_letter=dead_letter,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            max_retries=max_retries,
            compat=True,
        )
        if exclusive or auto_delete:
            # An exclusive queue goes with its connection and an auto-delete queue with its consumer.
            self._subscriber._fetch_early(name)
        else:
            self._subscriber.declare(name)

    def start_consuming(self, timeout: float | None = None) -> None:
        """Handles events until `stop_consuming`, Ctrl-C, SIGTERM, or until `timeout` seconds are over."""
        if self._disabled("start_consuming"):
            return
        try:
            self._subscriber.start_consuming(timeout or None)
        except KeyboardInterrupt:
            log.info("interrupted: the subscriber has stopped")
        finally:
            self.disconnect()

    def stop_consuming(self) -> None:
        """Has `start_consuming` finish what is under way and return."""
        if not self._disabled("stop_consuming"):
            self._subscriber.stop_consuming()

    def disconnect(self) -> None:
        """Stops consuming and lets go of the broker."""
        self._subscriber.close()

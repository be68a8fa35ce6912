"""The interface of PyPI's `domain-event-broker` 3.0.2 on the engine of Tidings: change the import, keep the program.

Queues, exchanges, bodies and defaults are that library's, so both can share a queue. What differs is what could lose
events: publishing waits for the broker's confirm, retries and dead letters are written before the event is acknowledged
and survive a restart of the broker, a subscriber reconnects, and `max_retries` bounds retries with growing delays too.
"""

from .events import DomainEvent
from .replay import DISCARD, LEAVE, RETRY, replay_all, replay_event
from .transport import Publisher, Retry, Subscriber, publish_domain_event

__version__ = "3.0.2"

__all__ = [
    "DISCARD",
    "LEAVE",
    "RETRY",
    "DomainEvent",
    "Publisher",
    "Retry",
    "Subscriber",
    "publish_domain_event",
    "replay_all",
    "replay_event",
]

"""Tidings in asyncio: the same names, with `await`. Works on asyncio's loops and on uvloop.

    from tidings import aio

    async with aio.Publisher() as publisher:
        await publisher.publish("user.registered", {"user_id": 7})

    subscriber = aio.Subscriber()

    @subscriber.handle("user.*", name="welcome", concurrency=32)
    async def welcome(event): ...

    await subscriber.start_consuming()

Cancelling any of these awaitables loses nothing: a publish goes on by itself, an event that was about to be handed over
goes back.
"""

from .publisher import Publisher, publish_domain_event
from .replay import dead_letters, replay_all, replay_dead_letters, replay_event
from .stream import EventStream, ReceivedEvent
from .subscriber import Subscriber

__all__ = [
    "EventStream",
    "Publisher",
    "ReceivedEvent",
    "Subscriber",
    "dead_letters",
    "publish_domain_event",
    "replay_all",
    "replay_dead_letters",
    "replay_event",
]

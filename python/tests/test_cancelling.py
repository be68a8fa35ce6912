"""Whatever is awaited may be cancelled at any time: nothing that was confirmed is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tidings import DomainEvent, Receipt, _native, aio

ROUNDS = 12
"""Times that each of the awaitables is cancelled."""


class Ledger:
    """What was confirmed, and what a handler saw."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.confirmed: set[int] = set()
        self.seen: set[int] = set()


async def cancelled(work: Awaitable[Any], dice: random.Random) -> None:
    """Begins, and cancels after a while if it is not done by then. Any other end but a result is an error."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=dice.random() * 0.004)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def publishing(publisher: aio.Publisher, url: str, name: str, ledger: Ledger) -> list[Callable[[], Awaitable[Any]]]:
    async def publish() -> None:
        number = next(ledger.numbers)
        await publisher.publish(f"{name}.x", number)
        ledger.confirmed.add(number)

    async def publish_batch() -> None:
        numbers = [next(ledger.numbers) for _ in range(5)]
        results = await publisher.publish_batch(DomainEvent(f"{name}.x", number) for number in numbers)
        assert all(isinstance(result, Receipt) for result in results)
        ledger.confirmed.update(numbers)

    async def flush() -> None:
        task = asyncio.ensure_future(publish())
        try:
            await publisher.flush()
        finally:
            await task

    async def close() -> None:
        async with aio.Publisher(url) as another:
            number = next(ledger.numbers)
            await another.publish(f"{name}.x", number)
            ledger.confirmed.add(number)

    return [publish, publish_batch, flush, close]


def iterating(events: Any, ledger: Ledger) -> list[Callable[[], Awaitable[Any]]]:
    def then(settle: Callable[[Any], Awaitable[None]]) -> Callable[[], Awaitable[Any]]:
        async def take() -> None:
            event = await events.__anext__()
            ledger.seen.add(event.data)
            await settle(event)

        return take

    async def nothing(event: Any) -> None: ...

    return [
        then(nothing),
        then(lambda event: event.ack()),
        then(lambda event: event.retry(0)),
        then(lambda event: event.fail(ValueError("no"))),
        then(lambda event: event.dead_letter("test")),
        then(lambda event: event.release()),
        then(lambda event: event.discard()),
    ]


def consuming(url: str, name: str, ledger: Ledger) -> list[Callable[[], Awaitable[Any]]]:
    async def handler(event: DomainEvent[Any]) -> None:
        ledger.seen.add(event.data)

    def then(work: Callable[[aio.Subscriber], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        async def use() -> None:
            subscriber = aio.Subscriber(url)
            subscriber.register(handler, name, f"{name}.#", max_retries=1000)
            try:
                await work(subscriber)
            finally:
                await subscriber.close()

        return use

    async def pausing(subscriber: aio.Subscriber) -> None:
        await subscriber.start()
        await subscriber.pause(name)
        await subscriber.resume(name)
        await subscriber.stop()

    async def closing(subscriber: aio.Subscriber) -> None:
        await subscriber.start()
        await subscriber.close()

    return [
        then(lambda subscriber: subscriber.declare()),
        then(lambda subscriber: subscriber.start_consuming()),
        then(pausing),
        then(closing),
        lambda: aio.dead_letters(name, url),
        lambda: aio.replay_event(name, connection_settings=url),
        lambda: aio.replay_all(name, connection_settings=url),
    ]


def test_every_awaitable_may_be_cancelled(url: str, broker: _native.Broker, name: str) -> None:
    dice, ledger = random.Random(11), Ledger()

    async def rest() -> None:
        await aio.replay_all(name, connection_settings=url)
        async with aio.Subscriber(url).events(name, f"{name}.#", max_retries=1000) as events:
            while not ledger.confirmed <= ledger.seen:
                ledger.seen.add((await events.__anext__()).data)

    async def main() -> None:
        broker.declare(name, [f"{name}.#"], {})
        async with (
            aio.Publisher(url) as publisher,
            aio.Subscriber(url).events(name, f"{name}.#", prefetch=16, max_retries=1000) as events,
        ):
            works = [
                *publishing(publisher, url, name, ledger),
                *iterating(events, ledger),
                *consuming(url, name, ledger),
            ]
            for work in works * ROUNDS:
                await cancelled(work(), dice)
            await publisher.flush()
        assert ledger.confirmed
        await rest()

    asyncio.run(asyncio.wait_for(main(), 120))

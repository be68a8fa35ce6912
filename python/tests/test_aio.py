"""Publishing, handlers and iteration on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from tidings import DeadLetter, DomainEvent, Publisher, Receipt, Retry, _native, aio, dead_letters, errors

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a fresh loop, within half a minute."""

    def runner(main: Coroutine[Any, Any, Any]) -> Any:
        loop = asyncio.new_event_loop() if request.param == "asyncio" else uvloop.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main, 30))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return runner


@asynccontextmanager
async def consuming(subscriber: aio.Subscriber) -> AsyncIterator[None]:
    await subscriber.start()
    try:
        yield
    finally:
        await subscriber.close()


def test_publish_and_handle(url: str, broker: _native.Broker, name: str, run: Run) -> None:
    async def main() -> None:
        everything = asyncio.Event()
        seen: list[DomainEvent[Any]] = []
        subscriber = aio.Subscriber(url)

        @subscriber.handle(f"{name}.#", name=name, concurrency=50)
        async def handler(event: DomainEvent[Any]) -> None:
            await asyncio.sleep(0)
            seen.append(event)
            if len(seen) == 301:
                everything.set()

        async with consuming(subscriber), aio.Publisher(url) as publisher:
            receipt = await publisher.publish(f"{name}.x", {"n": -1}, key="k", headers={"h": 1})
            assert receipt.routed is True
            await asyncio.gather(*(publisher.publish(DomainEvent(f"{name}.x", {"n": n})) for n in range(200)))
            results = await publisher.publish_batch(DomainEvent(f"{name}.x", {"n": n}) for n in range(200, 300))
            assert all(isinstance(one, Receipt) for one in results)
            await publisher.flush()
            await everything.wait()
            assert subscriber.health()[0]["consuming"]
        assert sorted(event.data["n"] for event in seen) == list(range(-1, 300))
        assert {event.headers.get("h") for event in seen} == {None, 1}

    run(main())


def test_what_handlers_raise(file_url: str, run: Run) -> None:
    async def main() -> None:
        done = asyncio.Event()
        runs: list[tuple[str, int]] = []
        subscriber = aio.Subscriber(file_url)

        @subscriber.handle("a.#", name="s", max_retries=1, concurrency=8, timeout=0.05)
        async def handler(event: DomainEvent[Any]) -> None:
            runs.append((event.data, event.retries))
            if len(runs) == 7:
                done.set()
            if event.data == "retry":
                raise Retry(0)
            if event.data == "dead":
                raise DeadLetter("no-address")
            if event.data == "fail":
                raise ValueError("no")
            if event.data == "slow":
                await asyncio.sleep(60)
            if event.data == "cancelled":
                inner = asyncio.ensure_future(asyncio.sleep(60))
                inner.cancel()
                await inner

        async with aio.Publisher(file_url) as publisher:
            await subscriber.declare()
            for data in ("ok", "retry", "dead", "fail", "slow", "cancelled"):
                await publisher.publish("a.b", data)
        async with consuming(subscriber):
            await done.wait()
        entries = await aio.dead_letters("s", file_url)
        reasons = {entry.event.data: (entry.reason, entry.error_type) for entry in entries}
        assert reasons == {
            "retry": ("max-retries", "Retry"),
            "dead": ("no-address", None),
            "fail": ("error", "ValueError"),
            "slow": ("timeout", "Timeout"),
            **({"cancelled": ("error", "CancelledError")} if sys.version_info >= (3, 11) else {}),
        }
        assert await aio.replay_all("s", connection_settings=file_url) == 0

    run(main())


def test_start_consuming_ends_by_itself(file_url: str, run: Run) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(file_url)

        @subscriber.handle("a.#", name="s")
        async def handler(event: DomainEvent[Any]) -> None:
            subscriber.stop_consuming()

        await subscriber.start_consuming(timeout=0.01)
        await aio.publish_domain_event("a.b", {}, connection_settings=file_url)
        await subscriber.start_consuming()
        await subscriber.close()
        await aio.Subscriber(None).start_consuming()

    run(main())


def test_middleware_and_context(file_url: str, run: Run) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def main() -> None:
        calls: list[Any] = []
        everything = asyncio.Event()

        async def around(event: DomainEvent[Any], call: Any) -> Any:
            calls.append(variable.get())
            variable.set(1)
            return await call(event)

        subscriber = aio.Subscriber(file_url, middleware=[around])

        @subscriber.handle("a.#", name="s")
        async def handler(event: DomainEvent[Any]) -> None:
            calls.append("handler")
            if len(calls) == 6:
                everything.set()

        async with consuming(subscriber), aio.Publisher(file_url, middleware=[around]) as publisher:
            await publisher.publish("a.b", {})
            variable.set(0)
            await publisher.publish_batch([DomainEvent("a.b")])
            await everything.wait()
        assert calls.count("handler") == 2
        assert set(calls) == {0, "handler"}

    run(main())


def test_iterating_acks_the_one_before_and_releases_the_last(
    url: str, broker: _native.Broker, name: str, run: Run
) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(url)
        await asyncio.to_thread(broker.declare, name, [f"{name}.#"], {})
        async with aio.Publisher(url) as publisher:
            for number in range(5):
                await publisher.publish(f"{name}.x", number)
        seen = []
        stream = subscriber.events(name, f"{name}.#", max_retries=1)
        async for event in stream:
            seen.append(event.data)
            if len(seen) == 2:
                break
        first = seen[0]
        async with stream as events:
            async for event in events:
                seen.append(event.data)
                if len(seen) == 3:
                    assert event.retries == 0
                    await event.dead_letter("enough")
                    with pytest.raises(RuntimeError, match="settled before"):
                        await event.ack()
                if len(seen) == 6:
                    await event.ack()
                    break
        assert sorted([first, *seen[2:]]) == [0, 1, 2, 3, 4]
        await subscriber.close()
        assert [entry.reason for entry in dead_letters(name, url)] == ["enough"]

    run(main())


def test_leaving_a_loop_by_an_exception_releases(file_url: str, run: Run) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(file_url)
        stream = subscriber.events("s", "a.#")
        await asyncio.to_thread(Publisher(file_url).publish, "x.y", {})
        async with stream:
            await aio.publish_domain_event("a.b", 1, connection_settings=file_url)

        async def loop() -> None:
            async for event in stream:
                raise ValueError(event.data)

        with pytest.raises(ValueError, match="1"):
            await loop()
        async for event in stream:
            assert (event.data, event.retries) == (1, 0)
            break

    run(main())


def test_a_model_in_an_iteration(file_url: str, run: Run) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(file_url)
        async with subscriber.events("s", "a.#", model=int) as events, aio.Publisher(file_url) as publisher:
            await publisher.publish("a.b", "no number")
            await publisher.publish("a.b", "7")
            assert (await events.__anext__()).data == 7
            await events.aclose()
            (entry,) = await aio.dead_letters("s", file_url)
            assert entry.reason == "invalid-data"

    run(main())


def test_cancelling_at_random_times_loses_nothing(file_url: str, run: Run) -> None:
    """Each awaitable is cancelled again and again; in the end every confirmed event was handled."""
    dice = random.Random(7)

    async def main() -> None:
        subscriber = aio.Subscriber(file_url)
        seen: set[int] = set()
        confirmed: set[int] = set()
        await asyncio.to_thread(_native.Broker.connect(file_url).declare, "s", ["a.#"], {})
        async with aio.Publisher(file_url) as publisher:

            async def publish(number: int) -> None:
                await publisher.publish("a.b", number)
                confirmed.add(number)

            async def take(events: Any) -> None:
                event = await events.__anext__()
                seen.add(event.data)
                if dice.random() < 0.3:
                    await event.ack()

            for number in range(400):
                task = asyncio.ensure_future(publish(number))
                await asyncio.sleep(dice.random() * 0.002)
                task.cancel()
                await asyncio.wait([task])
            async with subscriber.events("s", "a.#", prefetch=16) as events:
                for _ in range(400):
                    task = asyncio.ensure_future(take(events))
                    await asyncio.sleep(dice.random() * 0.002)
                    task.cancel()
                    await asyncio.wait([task])
            await publisher.publish("a.b", -1)
            async with subscriber.events("s", "a.#") as events:
                async for event in events:
                    seen.add(event.data)
                    if -1 in seen and confirmed <= seen:
                        break
        assert confirmed <= seen
        await subscriber.close()

    run(main())


def test_a_cancelled_consumer_gives_back_what_its_handlers_have(file_url: str, run: Run) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(file_url)
        begun = asyncio.Event()

        @subscriber.handle("a.#", name="s", concurrency=2)
        async def handler(event: DomainEvent[Any]) -> None:
            begun.set()
            await asyncio.sleep(60)

        await subscriber.declare()
        await aio.publish_domain_event("a.b", {}, connection_settings=file_url)
        task = asyncio.ensure_future(subscriber.start_consuming())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async for event in subscriber.events("s", "a.#"):
            assert event.retries == 0
            break
        await subscriber.close()

    run(main())


def test_two_loops_in_two_threads(url: str, broker: _native.Broker, name: str) -> None:
    failures: list[BaseException] = []

    async def main(mine: str) -> None:
        subscriber = aio.Subscriber(url)
        async with subscriber.events(f"{name}-{mine}", f"{name}.{mine}") as events, aio.Publisher(url) as publisher:
            for number in range(50):
                await publisher.publish(f"{name}.{mine}", number)
                assert (await events.__anext__()).data == number
        await subscriber.close()

    def thread(mine: str) -> None:
        try:
            asyncio.run(asyncio.wait_for(main(mine), 30))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(mine,)) for mine in ("one", "two")]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for mine in ("one", "two"):
        broker.delete_subscription(f"{name}-{mine}")
    assert not failures


def test_errors_arrive_as_exceptions(run: Run, file_url: str) -> None:
    async def main() -> None:
        with pytest.raises(errors.UnsupportedTransportError):
            await aio.Publisher("http://x").publish("a.b", {})
        async with aio.Publisher(file_url) as publisher:
            with pytest.raises(errors.UnroutableError):
                await publisher.publish("a.b", {}, require_route=True)
            with pytest.raises(errors.InvalidRoutingKeyError):
                await publisher.publish("a.*", {})
        subscriber = aio.Subscriber("http://x")

        def plain(event: DomainEvent[Any]) -> None: ...

        async def handler(event: DomainEvent[Any]) -> None: ...

        with pytest.raises(TypeError, match="plain function"):
            subscriber.register(plain, "s", "a.#")
        subscriber.register(handler, "s", "a.#")
        with pytest.raises(errors.UnsupportedTransportError):
            await subscriber.start_consuming()

    run(main())


def test_pause_and_resume(file_url: str, run: Run) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(file_url)
        arrived = asyncio.Event()

        @subscriber.handle("a.#", name="s")
        async def handler(event: DomainEvent[Any]) -> None:
            arrived.set()

        async with consuming(subscriber):
            await subscriber.pause("s")
            await aio.publish_domain_event("a.b", {}, connection_settings=file_url)
            assert subscriber.health()[0]["paused"]
            assert not arrived.is_set()
            await subscriber.resume("s")
            await arrived.wait()
            with pytest.raises(errors.SubscriptionNotFoundError):
                await subscriber.pause("other")

    run(main())

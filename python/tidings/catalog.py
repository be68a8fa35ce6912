"""Publishing and subscribing by `broker:topic`, which a catalog resolves for each environment.

    from tidings import message_broker

    await message_broker.publish(
        env="prd", event="orders:new-orders", product_tag="my_product", input={"message": {"id": 7}}
    )

Without a catalog every `broker:topic` is on the broker of the environment; the guide on catalogs says where one is
found. The calls are asyncio's.
"""

from __future__ import annotations

import inspect
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors
from ._handler import Registration
from ._native import Catalog, DomainEvent, Topic, encode_json
from .aio._loop import run, take
from .aio.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import timedelta

    Session = Mapping[str, str] | str
    Verifier = Callable[[Session], str | Awaitable[str | None] | None]

__all__ = ["BrokersService", "MessageBroker", "PublishResult", "Subscription", "message_broker"]

#: What `subscribe` takes in `input` beside `callback`, `group` and `model`.
_SETTINGS = frozenset(
    ("capture_stack", "concurrency", "max_deliveries", "max_retries", "prefetch", "redact", "retry", "timeout")
)


class PublishResult(NamedTuple):
    """What a publish came to."""

    process_id: str
    """Names this call."""
    message_id: str
    """The event's id."""
    cached: bool = False
    """It was sent before, in the window of its cache; this is what that call got."""
    error: str | None = None
    """Says that the idempotency key is known."""
    success: bool = True
    """What fails raises."""


class Subscription:
    """A subscription to a topic that runs."""

    def __init__(self, subscriber: Subscriber, name: str) -> None:
        self._subscriber = subscriber
        #: Its name at the broker.
        self.subscription = name
        self.success = True

    async def unsubscribe(self, timeout: float | timedelta | None = None) -> int:
        """Stops, waits for handlers that run (default: 30 s), releases the rest; how many. May be called twice."""
        return await self._subscriber.stop(timeout)

    def health(self) -> list[dict[str, Any]]:
        """What it is doing, as `tidings.Subscriber.health`."""
        return self._subscriber.health()


class MessageBroker:
    """Publishes and subscribes by `brokerTag:topicTag`.

    Args:
        catalog: The catalog itself, as in the guide. Default: `path`, else what the guide says.
        path: File that the catalog is in.
        product: Product of calls that name none.
        env: Environment of calls that name none.
        session_verifier: Accepts a session and returns whose it is (or None), or raises.
    """

    def __init__(
        self,
        catalog: Mapping[str, Any] | list[Any] | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        product: str | None = None,
        env: str | None = None,
        session_verifier: Verifier | None = None,
    ) -> None:
        self._settings = (None if catalog is None else encode_json(catalog), path, product, env)
        self._of_process: tuple[int, Catalog] | None = None
        self._verifier = session_verifier
        #: Looks back, publishes again, keeps idempotency keys.
        self.service = BrokersService(self)

    async def publish(
        self,
        *,
        event: str,
        input: Mapping[str, Any],
        env: str | None = None,
        product_tag: str | None = None,
        cache: str | None = None,
        session: Session | None = None,
    ) -> PublishResult:
        """Publishes an event and waits until its broker has it durably.

        An event that nobody wants yet waits for the topic's first subscriber. Cancelling the wait does not withdraw it.

        Args:
            event: `brokerTag:topicTag`.
            input: `message` (the data), and where wanted `headers`, `key` (ordering key), `delay` (seconds or a
                timedelta), `idempotency_key`.
            env: The environment: which of the broker's `envs` is meant.
            product_tag: The product.
            cache: Tag of the cache in whose window the same message is sent once.
            session: `{"tag": …, "token": …}`. Never sent, logged or stored.

        Raises:
            TidingsError: What the catalog does not declare, SessionInvalidError, and PublishFailedError with the
                broker's error as its cause.
        """
        request = {
            "event": event,
            "input": _with_milliseconds(input),
            "env": env,
            "product_tag": product_tag,
            "cache": cache,
            "session": session,
        }
        verified = await self._verified(session)
        result = await run(self._catalog.publish_soon, encode_json(request), verified)
        return PublishResult(**json.loads(result))

    async def subscribe(
        self,
        *,
        event: str,
        input: Mapping[str, Any],
        env: str | None = None,
        product_tag: str | None = None,
        session: Session | None = None,
    ) -> Subscription:
        """Handles a topic's events on the running loop, until it is unsubscribed.

        Args:
            event: `brokerTag:topicTag`.
            input: `callback`, an `async def` that takes the data, or the data and the event: returning acknowledges,
                what it raises decides, as in `tidings.Subscriber`. Where wanted `group` (processes of one group
                compete; by default all of the product), `model`, `concurrency`, `prefetch`, `max_retries`, `retry`,
                `timeout`, `max_deliveries`, `capture_stack`, `redact`, as in `tidings.Subscriber.register`.
            env: The environment.
            product_tag: The product.
            session: `{"tag": …, "token": …}`.

        Raises:
            TidingsError: What the catalog does not declare, SessionInvalidError, and SubscribeFailedError with the
                broker's error as its cause.
        """
        given = dict(input)
        handler, model = _handler(given.pop("callback", None)), given.pop("model", None)
        request = {
            "event": event,
            "env": env,
            "product_tag": product_tag,
            "session": session,
            "input": {"group": given.pop("group", None)},
        }
        unknown = sorted(given.keys() - _SETTINGS)
        if unknown:
            raise TypeError(f"input of subscribe() has no {unknown[0]!r}")
        topic = await take(self._catalog.topic_soon, encode_json(request), await self._verified(session))
        subscriber = _TopicSubscriber(topic)
        # Where it is bound is the catalog's to say.
        subscriber._registrations.append(Registration(handler, topic.name, "#", model, given, asynchronous=True))
        await subscriber.start()
        return Subscription(subscriber, topic.name)

    def resolve(
        self, *, event: str, env: str | None = None, product_tag: str | None = None, group: str | None = None
    ) -> dict[str, str | None]:
        """What a topic's name means: `url` (passwords not shown), `exchange`, `routing_key`, `subscription`.

        Nothing is reached.
        """
        found = self._catalog.resolve(product_tag, env, event, group)
        return dict(zip(("url", "exchange", "routing_key", "subscription"), found, strict=True))

    @property
    def _catalog(self) -> Catalog:
        """The engine's; a forked child gets one of its own."""
        known = self._of_process
        if known is None or known[0] != os.getpid():
            known = self._of_process = (os.getpid(), Catalog(*self._settings))
        return known[1]

    async def close(self) -> None:
        """Lets go of every broker. Subscriptions are to be unsubscribed before."""
        await run(self._catalog.close_soon)

    async def _call(self, operation: str, request: Mapping[str, Any]) -> Any:
        return json.loads(await run(self._catalog.call_soon, operation, encode_json(request)))

    async def _verified(self, session: Session | None) -> tuple[str, str | None] | None:
        """Asks the program's own verifier; without one, or without a session, the engine decides."""
        if self._verifier is None or not session:
            return None
        tag = session.partition(":")[0] if isinstance(session, str) else str(session.get("tag"))
        try:
            subject = self._verifier(session)
            if subject is not None and not isinstance(subject, str):
                subject = await subject
        except Exception:
            # The verifier's own words may repeat the token.
            raise errors.SessionInvalidError(
                "the session was rejected: the verifier did not accept it",
                field="session",
                value=tag,
                remedy="start a new session; nothing was sent",
            ) from None
        return tag, subject


class _TopicSubscriber(Subscriber):
    """A subscriber whose broker is a topic's; the connection is the catalog's."""

    def __init__(self, topic: Topic) -> None:
        super().__init__()
        self._connection = _Reached(topic)  # type: ignore[assignment]


class _Reached:
    connected = None

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    async def broker(self) -> Topic:
        return self._topic

    async def close(self) -> None:
        """The others of the catalog may need it."""


def _with_milliseconds(given: Mapping[str, Any]) -> dict[str, Any]:
    """Delays are seconds in Python and milliseconds in requests."""
    out = dict(given)
    delay = out.pop("delay", None)
    if delay is not None:
        out["delay_ms"] = round(1000 * (delay if isinstance(delay, int | float) else delay.total_seconds()))
    return out


def _handler(callback: Any) -> Callable[[DomainEvent[Any]], Awaitable[Any]]:
    if not inspect.iscoroutinefunction(callback):
        raise TypeError(f"input['callback'] must be an `async def` function, not {callback!r}")
    try:
        inspect.signature(callback).bind(None, None)
    except TypeError:

        async def with_data(event: DomainEvent[Any]) -> Any:
            return await callback(event.data)

        return with_data

    async def with_event(event: DomainEvent[Any]) -> Any:
        return await callback(event.data, event)

    return with_event


class BrokersService:
    """Looks back, publishes again, keeps idempotency keys: served from what the broker really knows.

    What it cannot know is an error that says so. Requests are keywords: `product`, `env`, `broker_tag`, `topic_tag`, …;
    results are plain dicts and lists.
    """

    def __init__(self, messages: MessageBroker) -> None:
        self._messages = messages

    async def publish_idempotent(
        self, *, idempotency_key: str, idempotency_ttl: int | None = None, **request: Any
    ) -> PublishResult:
        """Publishes once while the key is remembered: `idempotency_ttl` seconds, a day unless given."""
        request["input"] = _with_milliseconds(request["input"])
        request |= {"idempotency_key": idempotency_key, "idempotency_ttl": idempotency_ttl}
        return PublishResult(**await self._messages._call("publishIdempotent", request))

    async def check_idempotency(self, **request: Any) -> dict[str, Any]:
        """`{"exists": …, "event_id": …}` of `idempotency_key`."""
        return await self._messages._call("checkIdempotency", request)  # type: ignore[no-any-return]

    async def get_events(self, **request: Any) -> dict[str, Any]:
        """`{"events": […]}` that the broker still has."""
        return await self._messages._call("getEvents", request)  # type: ignore[no-any-return]

    async def get_event(self, **request: Any) -> dict[str, Any]:
        """The event `event_id`."""
        return await self._messages._call("getEvent", request)  # type: ignore[no-any-return]

    async def get_event_stats(self, **request: Any) -> dict[str, Any]:
        """How many events there are of which status and topic."""
        return await self._messages._call("getEventStats", request)  # type: ignore[no-any-return]

    async def replay_event(self, **request: Any) -> dict[str, Any]:
        """Publishes a copy of `event_id` with a new id. `force`: also if it was handled."""
        return await self._messages._call("replayEvent", request)  # type: ignore[no-any-return]

    async def reprocess_dlq(self, **request: Any) -> dict[str, Any]:
        """Puts dead letters (`message_ids`, or all) back into the subscriptions that gave up on them."""
        return await self._messages._call("reprocessDLQ", request)  # type: ignore[no-any-return]

    async def test_connection(self, **request: Any) -> dict[str, Any]:
        """Whether the broker answers; the reason is in the result if it does not."""
        return await self._messages._call("testConnection", request)  # type: ignore[no-any-return]

    async def get_brokers(self, **request: Any) -> list[Any]:
        """The brokers of a product, secrets hidden."""
        return await self._messages._call("getBrokers", request)  # type: ignore[no-any-return]

    async def get_topics(self, **request: Any) -> list[Any]:
        """The topics of the broker `tag`."""
        return await self._messages._call("getTopics", request)  # type: ignore[no-any-return]


#: Of the catalog that the environment names, for programs that have one.
message_broker = MessageBroker()

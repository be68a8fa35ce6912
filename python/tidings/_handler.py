"""A handler with what it asked for, and what its end means for the event."""

from __future__ import annotations

from time import perf_counter

from . import _tracing, errors
from ._native import DomainEvent, asked, check_subscription

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from typing import Any

    from ._native import Asked
    from .inbox import Inbox, MemoryInbox

    Outcome = Asked | tuple[Any, ...] | None
    """What the engine is told: None (handled), what an exception asks for, or a tuple (`Deliveries.settle_soon`)."""
    Handler = Callable[[DomainEvent[Any]], Any]
    Middleware = Callable[[DomainEvent[Any], Handler], Any]

RELEASE: Outcome = ("release",)
MOST_AT_A_TIME = 128
"""Events that are taken at a time, as long as the handler is quick."""
LONGEST_WAIT = 0.004
"""Seconds that an outcome waits for others to be settled with, and a taken event for its handler."""


class _Log:
    """`logging.getLogger("tidings")`, imported when there is something to say."""

    def __getattr__(self, name: str) -> Any:
        import logging

        return getattr(logging.getLogger("tidings"), name)


log = _Log()


class InvalidDataError(Exception):
    """The data do not fit the handler's model. Never retried: the same data will not fit later."""


class StoreFailed(Exception):  # noqa: N818
    """The database of an inbox failed: no attempt is spent."""


class Registration:
    """A subscription's name, binding keys, settings and handler, checked."""

    __slots__ = (
        "asynchronous",
        "binding_keys",
        "call",
        "handler",
        "inbox",
        "model",
        "name",
        "prefetch",
        "settings",
        "timeout",
        "validate",
    )

    def __init__(
        self,
        handler: Handler,
        name: str | None,
        binding_keys: Iterable[str] | str,
        model: Any,
        settings: dict[str, Any],
        *,
        asynchronous: bool,
    ) -> None:
        self.asynchronous = asynchronous
        self.handler = handler
        self.inbox: Inbox | MemoryInbox | None = settings.pop("inbox", None)
        self.name = name if name is not None else _name_of(handler)
        self.binding_keys = [binding_keys] if isinstance(binding_keys, str) else list(binding_keys)
        self.settings = settings
        self.model = model
        if not self.binding_keys:
            raise errors.InvalidBindingKeyError(
                "the subscription has no binding key, so nothing would ever arrive",
                field="binding_keys",
                value="[]",
                remedy='say which events it wants, such as "order.*", or "#" for all',
            )
        self.prefetch = check_subscription(self.name, self.binding_keys, settings)
        _check_handler(handler, asynchronous, 1 if self.inbox is None else self.inbox.arguments)
        if model is None:
            self.validate = None
        else:
            from .model import validator

            self.validate = validator(model)
        self.timeout = seconds(settings.get("timeout"))
        self.call: Handler = handler

    @property
    def concurrency(self) -> int:
        """Handlers that run at once."""
        return self.settings.get("concurrency") or 1

    @property
    def at_a_time(self) -> int:
        """Most events that are taken and settled at a time: a half of those that are fetched.

        The broker sends new ones while the other half is handled; smaller parts only cost it more acks.
        """
        if self.prefetch == 0:
            return MOST_AT_A_TIME  # there is no limit
        return max(1, min(self.prefetch // 2, MOST_AT_A_TIME))

    def wrap(self, middleware: Iterable[Middleware]) -> None:
        """Puts middleware around the handler, the first one outermost."""
        call = self.handler
        if self.inbox is not None:
            call = self.inbox.around(call, self.name, asynchronous=self.asynchronous)
        for one in reversed(tuple(middleware)):
            call = _link(one, call)
        self.call = call

    def prepare(self, event: DomainEvent[Any]) -> DomainEvent[Any]:
        """The event with its data as the model wants them. Raises InvalidDataError."""
        return event if self.validate is None else event._with_model(self.validate(event.data))

    def span(self, event: DomainEvent[Any]) -> AbstractContextManager[Any]:
        """A span around the handler, where opentelemetry is there."""
        return _tracing.handling(event, self.name)

    def run(self, event: DomainEvent[Any]) -> Outcome:
        """Handles an event on this thread. Lets only SystemExit and KeyboardInterrupt out."""
        started = 0.0 if self.timeout is None else perf_counter()
        try:
            result = self._handle(event)
            if result is not None and hasattr(result, "__await__"):
                raise _coroutine(self, result)
        except Exception as error:
            return self.outcome_of(event, error)
        if self.timeout is not None and perf_counter() - started > self.timeout:
            return self.timed_out(event)
        return None

    def _handle(self, event: DomainEvent[Any]) -> Any:
        if self.validate is not None:
            event = self.prepare(event)
        if _tracing.api() is None:
            return self.call(event)
        with self.span(event):
            return self.call(event)

    async def run_async(self, event: DomainEvent[Any]) -> Outcome:
        """Handles an event in this task. Lets SystemExit, KeyboardInterrupt and a cancellation from outside out."""
        import asyncio

        try:
            if self.validate is not None:
                event = self.prepare(event)
            if _tracing.api() is None:
                await self.call(event)
            else:
                with self.span(event):
                    await self.call(event)
        except asyncio.CancelledError as error:
            task: Any = asyncio.current_task()
            if task is None or not hasattr(task, "cancelling") or task.cancelling():
                raise
            # Of something that the handler itself awaited.
            return self.failed(event, error)
        except Exception as error:
            return self.outcome_of(event, error)
        return None

    def timed_out(self, event: DomainEvent[Any]) -> Outcome:
        """The handler ran into its time-out."""
        message = f"the handler ran longer than {self.timeout:g} s"
        log.error("%s: %s %s: %s", self.name, event.routing_key, event.id, message)
        return ("fail", ["Timeout", "TimeoutError"], message, None, "timeout")

    def outcome_of(self, event: DomainEvent[Any], error: BaseException) -> Outcome:
        """What an exception of the handler means."""
        try:
            outcome = asked(error)
        except Exception as senseless:
            # Such as Retry("soon").
            return self.failed(event, senseless)
        if outcome is None:
            return self.failed(event, error)
        if isinstance(error, InvalidDataError):
            log.error("%s: %s %s: the data do not fit the model", self.name, event.routing_key, event.id)
        return outcome

    def failed(self, event: DomainEvent[Any], error: BaseException) -> Outcome:
        """The handler failed: types, message and stack of the error."""
        import traceback

        kept = self.settings.get("capture_stack", True) is not False
        # A hook that rewrites texts has no say over a log line: the log says less then.
        quiet = not kept or self.settings.get("redact") is not None
        log.error(
            "%s: the handler of %s %s failed: %s",
            self.name,
            event.routing_key,
            event.id,
            type(error).__name__ if quiet else error,
            exc_info=None if quiet else error,
        )
        stack = "".join(traceback.format_exception(error)) if kept else None
        return ("fail", _types(type(error)), _text(error), stack, "error")


def seconds(length: Any) -> float | None:
    """Seconds of a number or a timedelta."""
    return length if length is None or isinstance(length, int | float) else length.total_seconds()


def _link(middleware: Middleware, call: Handler) -> Handler:
    return lambda event: middleware(event, call)


def _text(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__


def _types(kind: type[BaseException]) -> list[str]:
    """Names of the error's classes, most specific first; below them the full names, by which policies know classes."""
    classes = [one for one in kind.__mro__ if one not in (object, BaseException)]
    short = [one.__name__ for one in classes]
    full = [f"{one.__module__}.{one.__qualname__}" for one in classes if one.__module__ != "builtins"]
    return list(dict.fromkeys(short + full))


def _coroutine(registration: Registration, result: Any) -> TypeError:
    close = getattr(result, "close", None)
    if close is not None:
        close()
    return TypeError(
        f"the handler {_called(registration.handler)} returned a coroutine, which nobody awaits here: register it at a "
        "tidings.aio.Subscriber, or make it a plain function"
    )


def _called(handler: Any) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)


def _name_of(handler: Any) -> str:
    name = getattr(handler, "__name__", None)
    if name is None or name == "<lambda>":
        what = "a lambda" if name else f"a {type(handler).__qualname__}"
        raise errors.InvalidNameError(
            f"{what} has no name to call the subscription by",
            field="name",
            value=str(name),
            remedy='give it one: name="billing"',
        )
    return str(name)


def _check_handler(handler: Any, asynchronous: bool, arguments: int) -> None:
    import inspect

    if not callable(handler):
        raise TypeError(f"the handler must be callable, not {type(handler).__qualname__}")
    coroutine = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
    if coroutine and not asynchronous:
        raise TypeError(
            f"the handler {_called(handler)} is a coroutine function: register it at a tidings.aio.Subscriber, or make "
            "it a plain function"
        )
    if asynchronous and not coroutine and inspect.isfunction(handler):
        raise TypeError(
            f"the handler {_called(handler)} is a plain function, which would block the loop: make it `async def`, or "
            "register it at a tidings.Subscriber"
        )
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # a callable of C without a signature: its first call shows what it takes
    try:
        signature.bind(*(None,) * arguments)
    except TypeError as error:
        what = "the event alone" if arguments == 1 else "event and transaction"
        raise TypeError(
            f"the handler {_called(handler)}{signature} cannot be called with {what} ({error}): it must take "
            f"{'one argument' if arguments == 1 else 'two arguments'}"
        ) from None

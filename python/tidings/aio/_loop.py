"""The way from the engine's threads to a loop: one wake-up for all results that are there."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import TYPE_CHECKING, Any

from .._native import Bridge, Broker, Running

if TYPE_CHECKING:
    from collections.abc import Callable

# Not the other way round as well: a bridge knows nothing of its loop, so that both can go.
_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, Bridge]] = weakref.WeakKeyDictionary()


def bridge() -> Bridge:
    """The bridge of the running loop."""
    loop = asyncio.get_running_loop()
    known = _bridges.get(loop)
    if known is None or known[0] != os.getpid():
        made = Bridge()
        loop.add_reader(made.fileno(), made.deliver)
        known = _bridges[loop] = (os.getpid(), made)
    return known[1]


def start(operation: Callable[..., Running], *arguments: Any, **options: Any) -> tuple[asyncio.Future[Any], Running]:
    """Starts an operation of the engine; a future of the running loop gets its result."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return future, operation(bridge(), future, *arguments, **options)


async def run(operation: Callable[..., Running], *arguments: Any, **options: Any) -> Any:
    """Waits for an operation that goes on by itself when the wait is cancelled."""
    return await start(operation, *arguments, **options)[0]


async def take(operation: Callable[..., Running], *arguments: Any) -> Any:
    """Waits for an operation that is given up when the wait is cancelled."""
    future, running = start(operation, *arguments)
    try:
        return await future
    except asyncio.CancelledError:
        running.cancel()
        raise


class Connection:
    """A broker that is reached when it is first needed, once, by whoever comes first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._broker: Broker | None = None
        self._reaching: asyncio.Task[Broker] | None = None

    async def broker(self) -> Broker:
        """The broker, connected."""
        broker = self._broker
        if broker is None:
            if self._reaching is None:
                self._reaching = asyncio.get_running_loop().create_task(run(Broker.connect_soon, self.url))
            reaching = self._reaching
            try:
                # One that stops waiting must not stop the others.
                broker = await asyncio.shield(reaching)
                self._broker = broker
            finally:
                if reaching.done() and self._reaching is reaching:
                    self._reaching = None
        return broker

    @property
    def connected(self) -> Broker | None:
        """The broker, if it was needed by now."""
        return self._broker

    async def close(self) -> None:
        """Lets go of the broker."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await run(broker.close_soon)

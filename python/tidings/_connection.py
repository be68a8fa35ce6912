"""Which broker is meant, and the connections that a process shares."""

from __future__ import annotations

import os

from . import errors
from ._native import Broker, default_url

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _native

DEFAULT = ""
"""The broker of the environment: `TIDINGS_BROKER_URL`, else the file `tidings.db` in the working directory."""

_shared: dict[tuple[int, str, str, str], _native.Publisher] = {}


def check_settings(settings: object, exchange_type: object) -> str | None:
    """The URL, or None for "do nothing"; refuses what is neither."""
    if exchange_type != "topic":
        raise errors.InvalidOptionError(
            "events are routed by topic exchanges",
            field="exchange_type",
            value=str(exchange_type),
            remedy="leave it out",
        )
    if settings is None or isinstance(settings, str):
        return settings
    raise TypeError(f"connection_settings must be a URL or None, not {type(settings).__qualname__}")


class Connection:
    """A broker that is reached when it is first needed, in the process that needs it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._broker: Broker | None = None

    def broker(self) -> Broker:
        """The broker, connected. Raises ForkedClientError later if it was connected before a fork."""
        if self._broker is None:
            self._broker = Broker.connect(self.url)
        return self._broker

    @property
    def connected(self) -> Broker | None:
        """The broker, if it was needed by now."""
        return self._broker

    def close(self) -> None:
        """Lets go of the broker."""
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.close()


def shared_publisher(url: str, exchange: str) -> _native.Publisher:
    """A publisher that every caller of this process shares; a forked child gets one of its own."""
    key = (*shared_key(url), exchange)
    publisher = _shared.get(key)
    if publisher is None:
        publisher = _shared.setdefault(key, Broker.connect(url).publisher(exchange))
    return publisher


def shared_key(url: str) -> tuple[int, str, str]:
    """Tells the brokers apart that this process shares: the environment may change between two calls, tests do so."""
    return os.getpid(), url or default_url(), os.getcwd()

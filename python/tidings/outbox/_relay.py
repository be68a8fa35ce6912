"""A relay that runs, and what the outbox says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._store import StoreRelay


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How an outbox is: rows of each status, and the age in seconds of the oldest that should have been published."""

    pending: int
    processed: int
    failed: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that was given up on."""

    id: int
    event_id: str
    routing_key: str
    key: str | None
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class RelayHealth:
    """What a relay is doing: whether it works, its parts of the keys (of 256), the oldest row's age, the last error."""

    working: bool
    parts: int
    oldest: float | None
    last_error: str | None


class Relay:
    """A relay that runs. Ends with the process, or when it is stopped; as a context manager at the end of the block."""

    def __init__(self, inner: StoreRelay) -> None:
        self._inner = inner

    def health(self) -> RelayHealth:
        """What it is doing."""
        return RelayHealth(*self._inner.health())

    def metrics(self) -> dict[str, float]:
        """Its counters and gauges by name; first of all `tidings_outbox_oldest_seconds`."""
        return dict(self._inner.metrics())

    def stop(self) -> None:
        """Finishes what is on its way, hands over to other relays and ends."""
        self._inner.stop()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

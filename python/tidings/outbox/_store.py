"""The outbox's table, reached by the engine: in this process, or in one that is watched over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .._native import OutboxStore

if TYPE_CHECKING:
    from collections.abc import Sequence


class StoreRelay(Protocol):
    """A relay that runs."""

    def health(self) -> tuple[bool, int, float | None, str | None]:
        """Whether it works, its parts, the age of the oldest row, the last error."""
        ...

    def metrics(self) -> Sequence[tuple[str, float]]:
        """Its counters and gauges."""
        ...

    def stop(self) -> None:
        """Hands over and ends."""
        ...


class Store(Protocol):
    """The table."""

    def call(self, operation: str, request: str) -> str:
        """One of the engine's operations: JSON to JSON."""
        ...

    def relay(self, url: str, settings: str) -> StoreRelay:
        """Starts a relay."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


def connect(url: str, table: str) -> Store:
    """Reaches it.

    Two copies of SQLite in one process corrupt the file that both have open, and Python has a copy of its own: the
    engine's is in another process.
    """
    if url.startswith("sqlite:"):
        from ._supervisor import ChildStore

        return ChildStore(url, table)
    return OutboxStore.connect(url, table)

"""What a handler raises to say what should become of its event."""

from __future__ import annotations

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["DeadLetter", "Discard", "Retry"]


class Retry(Exception):  # noqa: N818  (the name that handlers of domain-event-broker raise)
    """Raise it to handle the event again later, at most `max_retries` times; then it is a dead letter.

    Args:
        delay: Seconds, or a timedelta. Default: what the retry policy says, else 10 s.
        message: Why, kept with the dead letter if this was one retry too many.
    """

    def __init__(self, delay: float | timedelta | None = None, message: str | None = None) -> None:
        super().__init__(message or "to be retried")
        self.delay = delay
        self.message = message


class DeadLetter(Exception):  # noqa: N818
    """Raise it to give up on the event at once.

    Args:
        reason: A short, stable text that replays can filter by.
        message: Details.
    """

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message


class Discard(Exception):  # noqa: N818
    """Raise it to drop the event: acknowledged, and counted apart from the handled ones."""

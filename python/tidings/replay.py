"""Dead letters: looking at them, and putting them back."""

from __future__ import annotations

from . import _native
from ._connection import DEFAULT, check_settings, shared_key
from ._native import Broker, DeadLetterEntry

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from typing import Any, Literal

    Action = Literal["retry", "leave", "discard"]
    Decide = Callable[[DeadLetterEntry], str]

__all__ = [
    "DISCARD",
    "LEAVE",
    "RETRY",
    "ReplayReport",
    "dead_letters",
    "replay_all",
    "replay_dead_letters",
    "replay_event",
    "retry_event",
]

RETRY: Literal["retry"] = "retry"
"""Put it back into its subscription, with no attempt spent."""
LEAVE: Literal["leave"] = "leave"
"""Leave it where it is."""
DISCARD: Literal["discard"] = "discard"
"""Remove it."""


class ReplayReport:
    """What a replay did.

    Attributes:
        seen: Dead letters looked at.
        chosen: Those that the conditions chose.
        replayed: Put back.
        discarded: Removed.
        left: Left, because the callback said so.
        remaining: Dead letters that are still there.
    """

    __slots__ = ("chosen", "discarded", "left", "remaining", "replayed", "seen")

    def __init__(self, seen: int, chosen: int, replayed: int, discarded: int, left: int, remaining: int) -> None:
        self.seen = seen
        self.chosen = chosen
        self.replayed = replayed
        self.discarded = discarded
        self.left = left
        self.remaining = remaining

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={getattr(self, name)}" for name in sorted(self.__slots__))
        return f"ReplayReport({counts})"


def retry_event(entry: DeadLetterEntry) -> str:
    """The default callback: puts every dead letter back."""
    return RETRY


_brokers: dict[tuple[int, str, str], Broker] = {}


def _broker(url: str) -> Broker:
    key = shared_key(url)
    broker = _brokers.get(key)
    if broker is None:
        broker = _brokers.setdefault(key, Broker.connect(url))
    return broker


def replay_event(
    queue_name: str,
    message_callback: Decide = retry_event,
    connection_settings: str | None = DEFAULT,
) -> int:
    """Does with the oldest dead letter of a subscription what the callback says.

    Args:
        queue_name: Name of the subscription.
        message_callback: Gets the `DeadLetterEntry` and returns `RETRY`, `LEAVE` or `DISCARD`.
        connection_settings: The broker's URL. `None`: nothing is done.

    Returns:
        How many other dead letters were there.

    Raises:
        SubscriptionNotFoundError: There is no such subscription.
        ValueError: The callback returned something else; the dead letter stays.
    """
    url = check_settings(connection_settings, "topic")
    return 0 if url is None else _native.replay_event(_broker(url), queue_name, message_callback)


def replay_all(
    queue_name: str,
    message_callback: Decide = retry_event,
    connection_settings: str | None = DEFAULT,
) -> int:
    """Does with every dead letter of a subscription what the callback says. The arguments are those of `replay_event`.

    Returns:
        How many are left: 0 once all are replayed or discarded.
    """
    url = check_settings(connection_settings, "topic")
    return 0 if url is None else _native.replay_all(_broker(url), queue_name, message_callback)


def _filter(
    ids: Iterable[str] | None,
    binding_keys: Iterable[str] | None,
    reason: str | None,
    error_type: str | None,
    tenant: str | None,
    failed_after: float | datetime | None,
    failed_before: float | datetime | None,
    matching: Callable[[DeadLetterEntry], bool] | None,
) -> dict[str, Any]:
    return {
        "ids": None if ids is None else list(ids),
        "binding_keys": None if binding_keys is None else list(binding_keys),
        "reason": reason,
        "error_type": error_type,
        "tenant": tenant,
        "failed_after": failed_after,
        "failed_before": failed_before,
        "matching": matching,
    }


def replay_dead_letters(
    subscription: str,
    decide: Decide = retry_event,
    connection_settings: str = DEFAULT,
    *,
    ids: Iterable[str] | None = None,
    binding_keys: Iterable[str] | None = None,
    reason: str | None = None,
    error_type: str | None = None,
    tenant: str | None = None,
    failed_after: float | datetime | None = None,
    failed_before: float | datetime | None = None,
    matching: Callable[[DeadLetterEntry], bool] | None = None,
    limit: int | None = None,
    rate: float | None = None,
    dry_run: bool = False,
) -> ReplayReport:
    """Puts the dead letters of a subscription back, those that all given conditions choose.

    It confirms the event in its new place before it removes the dead letter: interrupted, it is run again.

    Args:
        subscription: Its name.
        decide: Gets each chosen `DeadLetterEntry` and returns `RETRY`, `LEAVE` or `DISCARD`. Default: `RETRY`.
        connection_settings: The broker's URL.
        ids: Events with one of these ids.
        binding_keys: Events whose routing key matches one of these patterns.
        reason: Given up on for this reason.
        error_type: Whose last error had this type.
        tenant: Of this tenant.
        failed_after: Failed last at or after this time (seconds since the Unix epoch, or an aware datetime).
        failed_before: Failed last before this time.
        matching: For which this function holds.
        limit: At most so many of the chosen ones.
        rate: At most so many per second.
        dry_run: Only counts what would be done.
    """
    chosen = _filter(ids, binding_keys, reason, error_type, tenant, failed_after, failed_before, matching)
    return ReplayReport(
        *_native.replay(_broker(connection_settings), subscription, chosen, decide, limit, rate, dry_run)
    )


def dead_letters(
    subscription: str,
    connection_settings: str = DEFAULT,
    *,
    limit: int = 100,
    ids: Iterable[str] | None = None,
    binding_keys: Iterable[str] | None = None,
    reason: str | None = None,
    error_type: str | None = None,
    tenant: str | None = None,
    failed_after: float | datetime | None = None,
    failed_before: float | datetime | None = None,
    matching: Callable[[DeadLetterEntry], bool] | None = None,
) -> list[DeadLetterEntry]:
    """The first `limit` dead letters that all given conditions choose, oldest first. Looking changes nothing.

    The conditions are those of `replay_dead_letters`.
    """
    chosen = _filter(ids, binding_keys, reason, error_type, tenant, failed_after, failed_before, matching)
    return _native.dead_letters(_broker(connection_settings), subscription, chosen, limit)

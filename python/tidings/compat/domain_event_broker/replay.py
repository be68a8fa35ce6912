"""Putting dead letters back, with the callbacks of domain-event-broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tidings.replay as native
from tidings.replay import DISCARD, LEAVE, RETRY

from . import settings
from ._channel import Frame, Header
from ._url import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidings import DeadLetterEntry

__all__ = ["DISCARD", "LEAVE", "RETRY", "replay_all", "replay_event", "retry_event"]


def retry_event(body: bytes, **kwargs: Any) -> str:
    """The default callback: puts every event back."""
    return RETRY


def replay_event(
    queue_name: str, message_callback: Callable[..., str] = retry_event, connection_settings: str | None = ""
) -> int:
    """Does with the oldest dead letter of a queue what the callback says.

    The event is confirmed in its queue before the dead letter is removed; headers and properties stay.

    Args:
        queue_name: Name of the subscriber's queue.
        message_callback: Called with `frame=`, `header=` and `body=`; returns `RETRY`, `LEAVE` or `DISCARD`.
        connection_settings: The broker's URL. Default: `settings.BROKER`. `None`: nothing is done.

    Returns:
        How many other dead letters were there.

    Raises:
        Exception: The callback returned something else; the dead letter stays.
    """
    return _replay(native.replay_event, queue_name, message_callback, connection_settings)


def replay_all(
    queue_name: str, message_callback: Callable[..., str] = retry_event, connection_settings: str | None = ""
) -> int:
    """Does with every dead letter of a queue what the callback says. The arguments are those of `replay_event`.

    Returns:
        How many are left.
    """
    return _replay(native.replay_all, queue_name, message_callback, connection_settings)


def _replay(
    replay: Callable[..., int], queue_name: str, callback: Callable[..., str], connection_settings: str | None
) -> int:
    url = settings.BROKER if connection_settings == "" else connection_settings
    if url is None:
        return 0

    def decide(entry: DeadLetterEntry) -> str:
        header = Header(headers=entry.headers, message_id=entry.id)
        return callback(frame=Frame(entry.routing_key), header=header, body=entry.body)

    return replay(queue_name, decide, translated(url))

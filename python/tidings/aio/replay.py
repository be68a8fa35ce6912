"""Dead letters in asyncio: `tidings.replay`, each call on a thread. Callbacks run on that thread, not on the loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .. import replay as _sync
from .._connection import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._native import DeadLetterEntry
    from ..replay import ReplayReport

__all__ = ["dead_letters", "replay_all", "replay_dead_letters", "replay_event"]


async def replay_event(
    queue_name: str,
    message_callback: Callable[[DeadLetterEntry], str] = _sync.retry_event,
    connection_settings: str | None = DEFAULT,
) -> int:
    """Does with the oldest dead letter what the callback says. See `tidings.replay_event`."""
    return await asyncio.to_thread(_sync.replay_event, queue_name, message_callback, connection_settings)


async def replay_all(
    queue_name: str,
    message_callback: Callable[[DeadLetterEntry], str] = _sync.retry_event,
    connection_settings: str | None = DEFAULT,
) -> int:
    """Does with every dead letter what the callback says. See `tidings.replay_all`."""
    return await asyncio.to_thread(_sync.replay_all, queue_name, message_callback, connection_settings)


async def replay_dead_letters(
    subscription: str,
    decide: Callable[[DeadLetterEntry], str] = _sync.retry_event,
    connection_settings: str = DEFAULT,
    **conditions: Any,
) -> ReplayReport:
    """Puts dead letters back. See `tidings.replay_dead_letters`, whose keywords it takes."""
    return await asyncio.to_thread(_sync.replay_dead_letters, subscription, decide, connection_settings, **conditions)


async def dead_letters(
    subscription: str, connection_settings: str = DEFAULT, **conditions: Any
) -> list[DeadLetterEntry]:
    """Looks at dead letters. See `tidings.dead_letters`, whose keywords it takes."""
    return await asyncio.to_thread(_sync.dead_letters, subscription, connection_settings, **conditions)

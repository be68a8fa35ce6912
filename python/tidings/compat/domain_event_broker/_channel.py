"""The small part of pika's channel that programs touch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tidings import _native


@dataclass
class Frame:
    """What `basic_get` says of a message."""

    routing_key: str
    exchange: str = ""
    delivery_tag: int = 0
    redelivered: bool = False
    message_count: int = 0


@dataclass
class Header:
    """Properties of a message."""

    headers: dict[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    content_type: str | None = "application/json"
    delivery_mode: int = 2


class Channel:
    """`subscriber.channel`: deletes queues by name."""

    def __init__(self, url: str) -> None:
        self._url = url

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False) -> None:
        """Deletes this queue and what is in it; nothing happens if there is none.

        Raises:
            NotImplementedError: `if_unused` or `if_empty`: the broker is not asked for these conditions.
        """
        if if_unused or if_empty:
            raise NotImplementedError("queue_delete deletes without conditions: leave out if_unused and if_empty")
        _native.delete_queue(self._url, queue)

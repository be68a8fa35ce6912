"""Domain events that arrive.

A service announces `user.registered`; every named subscription that is bound to `user.*` gets its own durable copy,
decides for itself about retry, dead letter and replay, and none of it is lost when a process, a broker or a network
dies.

    from tidings import Subscriber, publish_domain_event

    publish_domain_event("user.registered", {"user_id": 7})

Start with `publish_domain_event` and `Subscriber`; in asyncio with `tidings.aio`.
"""

from __future__ import annotations

from ._connection import DEFAULT
from ._native import DeadLetterEntry, DomainEvent, Receipt, RetryPolicy, __version__
from .controls import DeadLetter, Discard, Retry
from .errors import TidingsError
from .publisher import Publisher, publish_domain_event
from .replay import DISCARD, LEAVE, RETRY, ReplayReport, dead_letters, replay_all, replay_dead_letters, replay_event
from .subscriber import Subscriber

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .catalog import MessageBroker, message_broker

__all__ = [
    "DEFAULT",
    "DISCARD",
    "LEAVE",
    "RETRY",
    "DeadLetter",
    "DeadLetterEntry",
    "Discard",
    "DomainEvent",
    "MessageBroker",
    "Publisher",
    "Receipt",
    "ReplayReport",
    "Retry",
    "RetryPolicy",
    "Subscriber",
    "TidingsError",
    "__version__",
    "dead_letters",
    "message_broker",
    "publish_domain_event",
    "replay_all",
    "replay_dead_letters",
    "replay_event",
]


def __getattr__(name: str) -> Any:
    # Programs that name their brokers themselves do not pay for asyncio.
    if name in ("MessageBroker", "message_broker"):
        from . import catalog

        return getattr(catalog, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

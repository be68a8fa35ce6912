"""The outbox in a Django project: events that are published if and only if the transaction commits."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

from tidings import DomainEvent
from tidings.outbox import Outbox, OutboxEvent

_outboxes: dict[str, Outbox] = {}


def publish_in_transaction(
    routing_key: str,
    data: Any = None,
    domain_object_id: str | None = None,
    uuid_string: str | None = None,
    timestamp: Any = None,
    *,
    using: str | None = None,
    available_at: Any = None,
    exchange: str | None = None,
    **event: Any,
) -> DomainEvent[Any]:
    """Writes an event into the outbox, inside `transaction.atomic()`; a relay publishes it if that commits.

    The arguments are those of `tidings.DomainEvent`; `using` names the database, `available_at` and `exchange` are
    those of `tidings.outbox.OutboxEvent`. The table is `settings.TIDINGS_OUTBOX_TABLE`, by default `tidings_outbox`.

    Raises:
        tidings.errors.NoTransactionError: There is no transaction.
    """
    made: DomainEvent[Any] = DomainEvent(
        routing_key, {} if data is None else data, domain_object_id, uuid_string, timestamp, **event
    )
    outbox().add(connections[using or DEFAULT_DB_ALIAS], OutboxEvent(made, available_at, exchange))
    return made


def outbox() -> Outbox:
    """The project's outbox: `settings.TIDINGS_STORE_URL` is its database, for relays; writing needs none."""
    table = getattr(settings, "TIDINGS_OUTBOX_TABLE", "tidings_outbox")
    if table not in _outboxes:
        _outboxes[table] = Outbox(getattr(settings, "TIDINGS_STORE_URL", None), table=table)
    return _outboxes[table]

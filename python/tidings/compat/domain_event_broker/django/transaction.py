"""Publishing together with the database."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from tidings.compat.domain_event_broker.transport import publish_domain_event


def publish_on_commit(*args: Any, **kwargs: Any) -> None:
    """Publishes once the current transaction has committed, at once where there is none, never after a rollback."""
    transaction.on_commit(lambda: _publish(args, kwargs))


def _publish(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    publish_domain_event(*args, **kwargs)

"""Publishing together with the database."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from tidings import publish_domain_event

from .settings import broker_url


def publish_on_commit(*args: Any, using: str | None = None, **kwargs: Any) -> None:
    """Publishes once the current transaction has committed, at once where there is none, never after a rollback.

    The arguments are those of `tidings.publish_domain_event`; `using` names the database. If the process ends between
    the commit and the publish, the event is lost: an outbox closes that gap.

    Raises:
        tidings.TidingsError: In the code that commits; the transaction stays committed.
    """
    kwargs.setdefault("connection_settings", broker_url())
    transaction.on_commit(lambda: _publish(args, kwargs), using=using)


def _publish(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    publish_domain_event(*args, **kwargs)

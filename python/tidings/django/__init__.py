"""Tidings in a Django project: add `"tidings.django"` to `INSTALLED_APPS`.

Settings:
    TIDINGS_BROKER_URL: URL of the broker. Left out: that of the environment (see `tidings.DEFAULT`). None: nothing is
        published, for tests and development.
    TIDINGS_STORE_URL: URL of the outbox's database, for relays.
    TIDINGS_OUTBOX_TABLE: Name of its table (`tidings_outbox`).
"""

from .outbox import publish_in_transaction
from .transaction import publish_on_commit

__all__ = ["publish_in_transaction", "publish_on_commit"]

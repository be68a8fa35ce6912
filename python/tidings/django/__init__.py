"""Tidings in a Django project: add `"tidings.django"` to `INSTALLED_APPS`.

Settings:
    TIDINGS_BROKER_URL: URL of the broker. Left out: that of the environment (see `tidings.DEFAULT`). None: nothing is
        published, for tests and development.
"""

from .transaction import publish_on_commit

__all__ = ["publish_on_commit"]

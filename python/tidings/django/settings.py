"""What the project's settings say."""

from __future__ import annotations

from django.conf import settings

from tidings import DEFAULT


def broker_url() -> str | None:
    """URL of the broker, `tidings.DEFAULT` for that of the environment, or None for none."""
    url: str | None = getattr(settings, "TIDINGS_BROKER_URL", DEFAULT)
    return url

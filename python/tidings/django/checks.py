"""System checks: `manage.py check`."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from tidings import TidingsError, _native

from .settings import broker_url


def check_broker_url(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Whether `TIDINGS_BROKER_URL` names a broker. Nothing is connected to."""
    url = broker_url()
    if url is None or url == "":
        return []
    if not isinstance(url, str):
        return [Error(f"TIDINGS_BROKER_URL must be a URL or None, not {type(url).__qualname__}", id="tidings.E001")]
    try:
        _native.check_url(url)
    except TidingsError as error:
        return [Error(f"TIDINGS_BROKER_URL: {error}", id="tidings.E002")]
    return []

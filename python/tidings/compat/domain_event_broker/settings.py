"""Which broker is meant where none is named."""

from __future__ import annotations

BROKER: str | None = "amqp://guest:guest@localhost:5672/%2F"
"""URL of the broker; None disables every action. May be assigned."""

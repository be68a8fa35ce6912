"""`manage.py replay_domain_event NAME…`"""

from __future__ import annotations

from typing import Any

from tidings.compat.domain_event_broker import replay
from tidings.django.management.commands import replay_domain_event


class Command(replay_domain_event.Command):
    """Puts dead letters back into the queues of domain-event-broker."""

    def replay(self, queue: str, every: bool, interactive: bool) -> int:
        """Replays one or all dead letters of a queue; how many are left."""
        run = replay.replay_all if every else replay.replay_event
        return run(queue, self._ask_about_message if interactive else replay.retry_event)

    def _ask_about_message(self, body: bytes, **kwargs: Any) -> str:
        return self.ask(body)

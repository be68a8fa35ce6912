"""`manage.py replay_domain_event NAME…`"""

from __future__ import annotations

import json
import select
import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from tidings import replay
from tidings.django.settings import broker_url

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from tidings import DeadLetterEntry

PATIENCE = 30
"""Seconds that an answer may take; then the event stays where it is."""


class Command(BaseCommand):
    """Puts dead letters back."""

    help = "Puts dead letters back into their subscription."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Names of subscriptions, `--all`, `--interactive`."""
        parser.add_argument("queue", nargs="+", help="name of a subscription")
        parser.add_argument("--all", action="store_true", dest="replay_all", help="every dead letter, not one")
        parser.add_argument("--interactive", action="store_true", help="ask what to do with each")

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs the command."""
        for queue in options["queue"]:
            left = self.replay(queue, options["replay_all"], options["interactive"])
            self.stdout.write(f"{left} dead-lettered events remaining for {queue}")

    def replay(self, queue: str, every: bool, interactive: bool) -> int:
        """Replays one or all dead letters of a subscription; how many are left."""
        run: Callable[..., int] = replay.replay_all if every else replay.replay_event
        return run(queue, self._ask_about if interactive else replay.retry_event, broker_url())

    def _ask_about(self, entry: DeadLetterEntry) -> str:
        return self.ask(entry.body)

    def ask(self, body: bytes) -> str:
        """Shows an event and asks what should become of it."""
        self.stdout.write("Please specify action for:")
        self.stdout.write(_readable(body))
        self.stdout.write("(R)eplay, (D)iscard or (L)eave? ", ending="")
        answer = _answer()
        if answer is None:
            self.stdout.write("No answer in time: the event stays a dead letter.")
            return replay.LEAVE
        choice = answer[:1].upper()
        if choice == "R":
            self.stdout.write("The event goes back to its subscription.")
            return replay.RETRY
        if choice == "D":
            self.stdout.write("The event is removed.")
            return replay.DISCARD
        self.stdout.write("The event stays a dead letter.")
        return replay.LEAVE


def _readable(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=4, sort_keys=True)
    except ValueError:
        return repr(body)


def _answer() -> str | None:
    ready, _, _ = select.select([sys.stdin], [], [], PATIENCE)
    return sys.stdin.readline().strip() if ready else None

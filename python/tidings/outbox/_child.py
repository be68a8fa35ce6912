"""The process that works on a SQLite file for another one: `_supervisor` starts it.

Reads requests as lines of JSON and answers them; ends with its standard input, relays handed over.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import errors
from .._native import OutboxRelay, OutboxStore

THREADS = 8
AGAIN = 1.0
"""Seconds between two tries to start a relay again."""


class Child:
    """The store and its relays."""

    def __init__(self, store: OutboxStore) -> None:
        self.store = store
        self.relays: dict[int, OutboxRelay] = {}
        self.output = threading.Lock()
        self.ended = threading.Event()

    def answer(self, request: dict[str, Any]) -> None:
        """Does what is asked and says what came of it."""
        try:
            answer: dict[str, Any] = {"id": request["id"], "ok": self.do(request)}
        except errors.TidingsError as error:
            answer = {"id": request["id"], "error": as_json(error)}
        self.say(answer)

    def do(self, request: dict[str, Any]) -> Any:
        kind, relay = request["do"], request.get("relay", 0)
        if kind == "call":
            return self.store.call(request["operation"], request["request"])
        if kind == "relay":
            return self.start(relay, request)
        if kind == "health":
            return self.relays[relay].health()
        if kind == "metrics":
            return self.relays[relay].metrics()
        return self.relays.pop(relay).stop()

    def start(self, relay: int, request: dict[str, Any]) -> None:
        """Starts a relay; one that ran before, until it runs again: its broker may be away for a while."""
        while not self.ended.is_set():
            try:
                self.relays[relay] = self.store.relay(request["url"], request["settings"])
            except errors.TidingsError:
                if not request.get("again"):
                    raise
                self.ended.wait(AGAIN)
            else:
                return

    def say(self, answer: dict[str, Any]) -> None:
        with self.output:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    def end(self) -> None:
        """Nobody asks any more."""
        for relay in self.relays.values():
            relay.stop()
        self.store.close()


def as_json(error: errors.TidingsError) -> dict[str, Any]:
    """The error for another process."""
    return {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "value": error.value,
        "remedy": error.remedy,
        "outcome_unknown": error.outcome_unknown,
    }


def main() -> None:
    """Works until the standard input ends."""
    # Ctrl-C is meant for the program, which ends this process in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = json.loads(sys.stdin.readline())
    try:
        child = Child(OutboxStore.connect(first["store"], first["table"]))
    except errors.TidingsError as error:
        sys.stdout.write(json.dumps({"id": 0, "error": as_json(error)}) + "\n")
        return
    child.say({"id": 0, "ok": None})
    with ThreadPoolExecutor(THREADS) as pool:
        for line in sys.stdin:
            pool.submit(child.answer, json.loads(line))
        child.ended.set()
    child.end()

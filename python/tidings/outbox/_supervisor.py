"""A SQLite outbox in a process of its own, started, watched over and started again."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .. import errors

PAUSE = 0.2
"""Seconds before a process that died is started again, doubling …"""
PAUSE_MAX = 10.0
PACKAGES = str(Path(__file__).resolve().parents[2])
PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tidings.outbox._child import main; main()"

log = logging.getLogger("tidings")


class _Reply:
    def __init__(self) -> None:
        self.there = threading.Event()
        self.answer: dict[str, Any] = {}

    def give(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.there.set()

    def wait(self) -> Any:
        self.there.wait()
        error = self.answer.get("error")
        if error is not None:
            code = error.pop("code")
            message, unknown = error.pop("message"), error.pop("outcome_unknown")
            raise errors._from_engine(code, message, error["field"], error["value"], error["remedy"], unknown, [])
        return self.answer["ok"]


class ChildStore:
    """As the engine's `OutboxStore`, in another process."""

    def __init__(self, url: str, table: str) -> None:
        # The program may go elsewhere; the file must not be another one then.
        self._folder = os.getcwd()
        self._first = json.dumps({"store": url, "table": table})
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._replies: dict[int, _Reply] = {}
        self._numbers = itertools.count(1)
        self._relays: dict[int, dict[str, Any]] = {}
        self._closed = False
        self._leaving = threading.Event()
        self._process = self._start()
        threading.Thread(target=self._watch, name="tidings-outbox", daemon=True).start()

    def call(self, operation: str, request: str) -> str:
        """One of the engine's operations."""
        answer: str = self._ask(do="call", operation=operation, request=request)
        return answer

    def relay(self, url: str, settings: str) -> ChildRelay:
        """Starts a relay there; a process that is started again starts it too."""
        number = next(self._numbers)
        asked = {"do": "relay", "relay": number, "url": url, "settings": settings}
        self._ask(**asked)
        self._relays[number] = asked
        return ChildRelay(self, number)

    def close(self) -> None:
        """Ends the process, relays handed over."""
        if self._pid != os.getpid():
            return
        self._closed = True
        self._leaving.set()
        with self._lock:
            process = self._process
            if process.stdin is not None:
                process.stdin.close()
        process.wait()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def _ask(self, **request: Any) -> Any:
        if self._pid != os.getpid():
            raise errors.ForkedClientError(
                "this was opened before a fork, and is used in the child", remedy="open it in the child"
            )
        if self._closed:
            raise errors.ClosedError("the outbox was closed", remedy="make another one")
        number, reply = next(self._numbers), _Reply()
        with self._lock:
            self._replies[number] = reply
            self._send({"id": number, **request})
        return reply.wait()

    def _send(self, request: dict[str, Any]) -> None:
        """The lock is held. A process that is gone answers through the watch."""
        stdin = self._process.stdin
        try:
            if stdin is not None:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
        except OSError:
            reply = self._replies.pop(request["id"], None)
            if reply is not None:
                reply.give({"error": _gone()})

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self._first + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        answer = json.loads(line) if line else {"error": _gone()}
        if "error" in answer:
            process.stdin.close()
            process.stdout.close()
            process.wait()
            reply = _Reply()
            reply.give(answer)
            reply.wait()
        return process

    def _watch(self) -> None:
        pause = PAUSE
        while True:
            stdout = self._process.stdout
            assert stdout is not None
            for line in stdout:
                answer = json.loads(line)
                reply = self._replies.pop(answer["id"], None)
                if reply is not None:
                    reply.give(answer)
            self._process.wait()
            stdout.close()
            with self._lock:
                lost, self._replies = self._replies, {}
            for reply in lost.values():
                reply.give({"error": _gone()})
            if self._closed:
                return
            log.warning("the process of the outbox ended (%s) and is started again", self._process.returncode)
            while not self._leaving.wait(pause) and not self._again():
                pause = min(pause * 2, PAUSE_MAX)
            if self._closed:
                return
            pause = PAUSE

    def _again(self) -> bool:
        try:
            process = self._start()
        except (OSError, errors.TidingsError) as error:
            log.warning("the process of the outbox does not start: %s", error)
            return False
        with self._lock:
            self._process = process
            for asked in self._relays.values():
                self._send({"id": next(self._numbers), "again": True, **asked})
        return True


class ChildRelay:
    """As the engine's `OutboxRelay`, in another process."""

    def __init__(self, store: ChildStore, number: int) -> None:
        self._store = store
        self._number = number

    def health(self) -> tuple[bool, int, float | None, str | None]:
        """What it is doing."""
        working, parts, oldest, last_error = self._store._ask(do="health", relay=self._number)
        return working, parts, oldest, last_error

    def metrics(self) -> list[tuple[str, float]]:
        """Its counters and gauges."""
        return [(name, value) for name, value in self._store._ask(do="metrics", relay=self._number)]

    def stop(self) -> None:
        """Hands over and ends."""
        if self._store._relays.pop(self._number, None) is not None:
            self._store._ask(do="stop", relay=self._number)


def _gone() -> dict[str, Any]:
    return {
        "code": "CONNECTION_FAILED",
        "message": "the process that works on the file ended",
        "field": None,
        "value": None,
        "remedy": "try again: it is started again",
        "outcome_unknown": True,
    }

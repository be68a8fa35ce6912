"""Drives a Tidings client process over the line protocol (tests/clients/PROTOCOL.md)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

Line = dict[str, Any]
TIMEOUT = 30.0

_CLIENTS = Path(__file__).resolve().parents[1] / "clients"
# One program for each language.
CLIENTS = {
    "rust": os.environ["TIDINGS_TEST_CLIENT"],
    "python": str(_CLIENTS / "python/client"),
    "node": str(_CLIENTS / "node/client"),
}


class CommandError(Exception):
    """The client answered with an error; `code` is its stable code."""

    def __init__(self, did: str, code: str, message: str) -> None:
        super().__init__(f"{did}: {message}")
        self.code = code


class TidingsClient:
    """A client process, connected. `language` names one of `CLIENTS`."""

    def __init__(self, url: str, language: str = "rust") -> None:
        self._process = subprocess.Popen(
            [CLIENTS[language]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._answers: queue.Queue[Line] = queue.Queue()
        self._effects: queue.Queue[Line] = queue.Queue()
        self._number = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.ask("connect", url=url)
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line: Line = json.loads(text)
            if "n" in line:
                self._answers.put(line)
            elif line["did"] == "effect":
                self._effects.put(line)

    def ask(self, do: str, **fields: object) -> Line:
        """Sends a command and returns its answer."""
        assert self._process.stdin is not None
        self._number += 1
        self._process.stdin.write(json.dumps({"do": do, "n": self._number, **fields}) + "\n")
        self._process.stdin.flush()
        answer = self._answers.get(timeout=TIMEOUT)
        assert answer["n"] == self._number, answer
        if error := answer.get("error"):
            raise CommandError(do, error["code"], error["message"])
        return answer

    def subscribe(self, name: str, binding: str, *, handler: Line | None = None, **options: object) -> None:
        """Subscribes to one binding key; every effect is reported with its event."""
        handler = handler or {"kind": "ok"}
        self.ask("subscribe", name=name, bindings=[binding], handler=handler, report="events", **options)

    def effect(self, timeout: float = TIMEOUT) -> Line:
        """The next thing that a handler did."""
        return self._effects.get(timeout=timeout)

    def ready_effects(self) -> list[Line]:
        """What handlers have done since the last look; waits a moment for the first one."""
        ready: list[Line] = []
        with contextlib.suppress(queue.Empty):
            ready.append(self._effects.get(timeout=0.05))
            while True:
                ready.append(self._effects.get_nowait())
        return ready

    def effects(self, count: int, timeout: float = TIMEOUT) -> list[Line]:
        """The next `count` things that handlers did."""
        return [self.effect(timeout) for _ in range(count)]

    def close(self) -> None:
        """Lets the process end, and waits for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(TIMEOUT)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()
        assert status == 0, f"the client ended with {status}"

    def __enter__(self) -> TidingsClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

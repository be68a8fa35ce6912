"""A process that the bench rig drives over lines (tests/clients/PROTOCOL.md): one library, used as its documents show.

    contender.py NAME

Commands: `connect`, `publish` (`count`, `in_flight`; answers `seconds`, `cpu_seconds`), `consume` (`name`, `count`,
`prefetch`, `classic`; answers the same from the first event to the last; a count of 0 never ends), `import` (`module`;
answers `cpu_seconds`). Every contender builds each event anew and decodes each one.
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import time
from typing import Any

EXCHANGE = "bench-events"
ROUTING_KEY = "user.registered"


def payload(n: int) -> dict[str, Any]:
    """The data of event number `n`."""
    return {
        "user_id": n,
        "name": f"User Number {n}",
        "email": f"user-{n}@example.com",
        "made": time.monotonic_ns(),
    }


class Watch:
    """Counts what comes, and the time and CPU from the first event to the last."""

    def __init__(self, until: int) -> None:
        self.until, self.seen = until, 0
        self.begin()

    def begin(self) -> None:
        """What came before is not the work."""
        self.began, self.cpu = time.monotonic(), time.process_time()
        self.seconds = self.cpu_seconds = 0.0

    def saw(self, data: Any) -> bool:
        """Counts an event; whether it was the last."""
        if data["user_id"] < 0:
            raise ValueError("this is no event of the bench")
        self.seen += 1
        if self.seen == 1:
            self.begin()
        if self.seen == self.until:
            self.end()
            return True
        return False

    def end(self) -> None:
        self.seconds, self.cpu_seconds = time.monotonic() - self.began, time.process_time() - self.cpu

    def answer(self) -> dict[str, Any]:
        if self.seen < self.until:
            raise RuntimeError(f"{self.seen} of {self.until} events came")
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


def importing(module: str) -> float:
    """CPU seconds of an interpreter that imports `module`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(name: str) -> None:
    module, kind = name.split(":")
    library: Any = importlib.import_module(f"contend_{module}")
    contender = library.CONTENDERS[kind]()
    for line in sys.stdin:
        request = json.loads(line)
        n, do = request["n"], request["do"]
        answer: dict[str, Any] = {}
        if do == "connect":
            contender.url = request["url"]
        elif do == "publish":
            watch = Watch(0)
            contender.publish(request["count"], request["in_flight"], watch)
            answer = watch.answer()
        elif do == "import":
            answer = {"cpu_seconds": importing(request["module"])}
        elif do == "consume":
            watch = Watch(request["count"])
            contender.consume(request["name"], request["prefetch"], request["classic"], watch)
            answer = watch.answer()
        print(json.dumps({"did": do, "n": n, **answer}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

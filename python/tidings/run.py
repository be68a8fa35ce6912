"""`tidings run package.module:subscriber --processes N`: a worker.

Imports the subscriber and consumes with it, in as many processes as asked for. A process that crashes is started again,
after a pause that grows while it keeps crashing. SIGTERM and SIGINT let every process finish what it is at.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["WrongSubscriberError", "consume", "load", "supervise"]

#: Seconds before a crashed process is started again; doubled with each crash in a row, at most the last.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: A process that lived longer than this has not crashed in a row.
HEALTHY = 60.0
#: Seconds beyond the drain time-out after which a process that should end is killed.
GRACE = 10.0


class WrongSubscriberError(Exception):
    """What was named is no subscriber. The message says what to do."""


def load(name: str) -> Any:
    """Imports `package.module:subscriber`."""
    module_name, _, attribute = name.partition(":")
    if not module_name or module_name.endswith(".py") or "/" in module_name:
        raise WrongSubscriberError(
            f"{name!r} names no module: write package.module:subscriber, as in an import, not a path"
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise WrongSubscriberError(
            f"there is no module {module_name!r} in {os.getcwd()} or on the Python path (no module {error.name!r})"
        ) from None
    candidates = [key for key, value in vars(module).items() if _is_subscriber(value)]
    if not attribute:
        if len(candidates) == 1:
            return getattr(module, candidates[0])
        raise WrongSubscriberError(_choose(module_name, candidates))
    if not hasattr(module, attribute):
        raise WrongSubscriberError(f"module {module_name!r} has no {attribute!r}. {_choose(module_name, candidates)}")
    found = getattr(module, attribute)
    if not _is_subscriber(found):
        raise WrongSubscriberError(
            f"{name} is a {type(found).__qualname__}, not a tidings.Subscriber or tidings.aio.Subscriber. "
            + _choose(module_name, candidates)
        )
    return found


def _is_subscriber(value: Any) -> bool:
    from .subscriber import Subscriptions

    return isinstance(value, Subscriptions)


def _choose(module: str, candidates: list[str]) -> str:
    if not candidates:
        return f"There is no subscriber in {module!r}: make one at its top level, subscriber = tidings.Subscriber()"
    return "Name one: " + ", ".join(f"{module}:{name}" for name in candidates)


def consume(name: str) -> None:
    """Consumes in this process until SIGTERM or SIGINT, then drains."""
    subscriber = load(name)
    if not subscriber.subscriptions:
        raise WrongSubscriberError(f"{name} has no handler: add one with @subscriber.handle(...) or register(...)")
    if subscriber._asynchronous:
        import asyncio

        asyncio.run(subscriber.start_consuming(handle_signals=True))
        return
    # Ctrl-C drains as well: the terminal sends it to every process of the group.
    signal.signal(signal.SIGINT, lambda *_: subscriber.stop_consuming())
    subscriber.start_consuming()


class _Child:
    """One process, as often as it has to be started."""

    def __init__(self, name: str) -> None:
        self.command = [sys.executable, "-m", "tidings", "run", name]
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.again_at = 0.0
        self.pause = FIRST_PAUSE

    def start(self) -> None:
        self.started = monotonic()
        self.process = subprocess.Popen(self.command)

    def look(self) -> int | None:
        """Starts it again if it has crashed and its pause is over. The exit status of one that ended well."""
        if self.process is None:
            if monotonic() >= self.again_at:
                self.start()
            return None
        status = self.process.poll()
        if status is None or status in (0, 2):
            return status
        lived = monotonic() - self.started
        self.pause = FIRST_PAUSE if lived > HEALTHY else min(self.pause * 2, LONGEST_PAUSE)
        _say(f"process {self.process.pid} ended with {_status(status)}; the next one starts in {self.pause:g} s")
        self.process, self.again_at = None, monotonic() + self.pause
        return None


def _status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _say(text: str) -> None:
    print(f"tidings: {text}", file=sys.stderr, flush=True)


def supervise(name: str, processes: int) -> int:
    """Runs so many processes until it is told to stop. The exit status."""
    subscriber = load(name)  # a mistake is said once, here
    if not subscriber.subscriptions:
        raise WrongSubscriberError(f"{name} has no handler: add one with @subscriber.handle(...) or register(...)")
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    children = [_Child(name) for _ in range(processes)]
    for child in children:
        child.start()
    status = 0
    while children and not stopping:
        for child in list(children):
            ended = child.look()
            if ended is not None:
                status = max(status, ended)
                children.remove(child)
        time.sleep(0.05)
    return max(status, _stop(children, subscriber._drain_timeout + GRACE))


def _stop(children: list[_Child], patience: float) -> int:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    until = monotonic() + patience
    for process in running:
        try:
            process.wait(max(0.0, until - monotonic()))
        except subprocess.TimeoutExpired:
            _say(f"process {process.pid} does not end: killed")
            process.kill()
            process.wait()
    return 0

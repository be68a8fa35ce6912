"""What happens when the interpreter ends while the engine runs."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    from ._consume import Consumption

running: weakref.WeakSet[Consumption] = weakref.WeakSet()
"""Subscribers that consume on some thread."""

_registered = 0

#: Longest wait for handlers of daemon threads, in seconds. Whatever still runs is released.
PATIENCE = 5.0


def register() -> None:
    """Has the engine of this process let go before the interpreter does. Called when the engine starts."""
    global _registered
    if _registered != os.getpid():
        _registered = os.getpid()
        atexit.register(_leave, _registered)


def _leave(pid: int) -> None:
    if os.getpid() != pid:
        return
    for consumption in list(running):
        consumption.stop()
    for consumption in list(running):
        with contextlib.suppress(Exception):
            consumption.wait_ended(PATIENCE)
    # From here on no thread comes back into an interpreter that is being taken down.
    _native.shutdown()

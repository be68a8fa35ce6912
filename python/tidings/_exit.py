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
_told_of_forks = False

#: Longest wait for handlers of daemon threads, in seconds. Whatever still runs is released.
PATIENCE = 5.0


def register() -> None:
    """Has the engine of this process let go before the interpreter does, and before a fork. Called when it starts."""
    global _registered, _told_of_forks
    if not _told_of_forks and hasattr(os, "register_at_fork"):
        # A child inherits these with the interpreter's state.
        _told_of_forks = True
        os.register_at_fork(
            before=_native.before_fork,
            after_in_parent=_native.after_fork_in_parent,
            after_in_child=_native.after_fork_in_child,
        )
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

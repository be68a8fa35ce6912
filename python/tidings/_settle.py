"""Runs handlers until nothing is left to do at this time: what `tidings.testing` does."""

from __future__ import annotations

import asyncio
import contextvars
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._handler import Outcome, Registration


def settle(
    test: _native.TestBroker, broker: _native.Broker, registrations: Sequence[Registration], patience: float
) -> None:
    """Handles events on this thread, one at a time, until the subscriptions are idle."""
    names = [one.name for one in registrations]
    deliveries = []
    until = monotonic() + patience
    try:
        for one in registrations:
            deliveries.append(broker.deliveries(one.name, one.binding_keys, one.settings))
        group = _native.Group(deliveries)
        while not test.is_idle(names):
            if monotonic() > until:
                raise AssertionError(f"{', '.join(names)}: there are still events to handle after {patience:g} s")
            # What is ready may be on its way from the broker, and what is settled on its way to it.
            batch = group.next(1, 0.01)
            group.settle_soon([(delivery, _run(registrations[delivery.index], delivery)) for delivery in batch])
    finally:
        for own in deliveries:
            own.close(1)


def _run(one: Registration, delivery: Any) -> Outcome:
    context = contextvars.copy_context()
    if not one.asynchronous:
        return context.run(one.run, delivery.event)
    return context.run(asyncio.run, one.run_async(delivery.event))

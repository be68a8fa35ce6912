"""The public surface, as a snapshot: a change of it is seen in a review.

`TIDINGS_UPDATE=1` writes the snapshot anew.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from pathlib import Path
from typing import Any

import tidings

SNAPSHOT = Path(__file__).parent / "surface.txt"
MODULES = [
    "tidings",
    "tidings.aio",
    "tidings.catalog",
    "tidings.errors",
    "tidings.inbox",
    "tidings.metrics",
    "tidings.outbox",
    "tidings.run",
    "tidings.testing",
]


def describe(name: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        lines = [f"class {name}({bases}){signature(value)}"]
        for attribute in sorted(dir(value)):
            if attribute.startswith("_"):
                continue
            # What Exception and tuple bring belongs to Python, and differs between its versions.
            if any(attribute in vars(base) for base in value.__mro__ if base.__module__ == "builtins"):
                continue
            member = inspect.getattr_static(value, attribute)
            if isinstance(member, staticmethod | classmethod) or inspect.isroutine(member):
                lines.append(f"    def {attribute}{signature(getattr(value, attribute))}")
            else:
                lines.append(f"    {attribute}")
        return lines
    if callable(value):
        return [f"{'async ' if inspect.iscoroutinefunction(value) else ''}def {name}{signature(value)}"]
    return [f"{name}: {type(value).__name__}"]


def signature(value: Any) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    text = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def test_the_surface_is_what_the_snapshot_says() -> None:
    lines = []
    for name in MODULES:
        module = importlib.import_module(name)
        lines.append(f"[{name}]")
        for public in sorted(module.__all__):
            if public not in ("tidings_broker", "BY_CODE", "__version__"):
                lines += describe(public, getattr(module, public))
    text = "\n".join(lines) + "\n"
    if os.environ.get("TIDINGS_UPDATE"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


def test_everything_public_is_documented() -> None:
    for name in tidings.__all__:
        value = getattr(tidings, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), name

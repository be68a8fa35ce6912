"""How Python objects become JSON.

What the standard library's `json` encodes is encoded alike: dict, list, tuple, str, int (of any size, exact), float,
bool, None, and their subclasses. Beyond that:

| Python | JSON |
|---|---|
| `datetime`, `date`, `time` | ISO 8601 text: `"2024-05-01T12:00:00+00:00"` |
| `timedelta` | seconds, a number |
| `uuid.UUID` | text |
| `decimal.Decimal` | text, so that no digit is lost |
| `enum.Enum` | its value |
| dataclass instance | an object of its fields |
| pydantic model | what `model_dump(mode="json")` says |
| `set`, `frozenset`, other iterables of `collections.abc.Set` | a list |
| other `collections.abc.Mapping` | an object |

NaN and Infinity, bytes, and everything else are refused, with the place where they are.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["simplify"]


def simplify(value: Any) -> Any:
    """What to encode instead of `value`, which JSON does not know; `value` itself if there is no such thing."""
    kind = type(value)
    dump = getattr(kind, "model_dump", None)
    if dump is not None:
        return dump(value, mode="json")
    # An instance of a class proves that its module is loaded: nothing is imported in vain.
    for module, convert in _CONVERSIONS.items():
        loaded = sys.modules.get(module)
        if loaded is not None:
            simple = convert(loaded, value, kind)
            if simple is not value:
                return simple
    return value


def _datetime(module: Any, value: Any, kind: type) -> Any:
    if isinstance(value, module.date | module.time):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, module.timedelta) else value


def _uuid(module: Any, value: Any, kind: type) -> Any:
    return str(value) if isinstance(value, module.UUID) else value


def _decimal(module: Any, value: Any, kind: type) -> Any:
    if not isinstance(value, module.Decimal):
        return value
    # Refused where a float is: NaN and Infinity are no numbers of JSON.
    return str(value) if value.is_finite() else float(value)


def _enum(module: Any, value: Any, kind: type) -> Any:
    return value.value if isinstance(value, module.Enum) else value


def _dataclass(module: Any, value: Any, kind: type) -> Any:
    if not hasattr(kind, "__dataclass_fields__"):
        return value
    return {field.name: getattr(value, field.name) for field in module.fields(value)}


def _collection(module: Any, value: Any, kind: type) -> Any:
    if isinstance(value, module.Mapping):
        return dict(value)
    return list(value) if isinstance(value, module.Set) else value


_CONVERSIONS = {
    "datetime": _datetime,
    "uuid": _uuid,
    "decimal": _decimal,
    "enum": _enum,
    "dataclasses": _dataclass,
    "collections.abc": _collection,
}

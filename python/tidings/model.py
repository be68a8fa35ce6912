"""Data as the type that a handler asked for.

`model=` takes a pydantic model (or anything else with `model_validate`), a dataclass, a TypedDict, or a callable that
makes something of the decoded JSON and raises ValueError or TypeError if it does not fit. Fields of a TypedDict or
dataclass are checked for presence and names, not for their types: use pydantic for that. What does not fit is
dead-lettered with reason `invalid-data` and the message, and never retried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._handler import InvalidDataError

__all__ = ["InvalidDataError", "validator"]


def validator(model: Any) -> Callable[[Any], Any]:
    """A function that makes what `model` describes of decoded JSON, or raises InvalidDataError."""
    make = _maker(model)

    def validate(data: Any) -> Any:
        try:
            return make(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidDataError(f"{type(error).__name__}: {error}") from error

    return validate


def _maker(model: Any) -> Callable[[Any], Any]:
    validate = getattr(model, "model_validate", None) or getattr(model, "validate_python", None)
    if validate is not None:
        return validate  # type: ignore[no-any-return]
    if isinstance(model, type) and hasattr(model, "__dataclass_fields__"):
        # pydantic's own dataclasses check their types when they are called, as any callable.
        return lambda data: model(**_fields(data))
    if hasattr(model, "__required_keys__"):
        return lambda data: _typed_dict(model, data)
    if callable(model):
        return model  # type: ignore[no-any-return]
    raise TypeError(
        f"model must be a pydantic model, a dataclass, a TypedDict or a callable, not {type(model).__qualname__}"
    )


def _fields(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError(f"the data are a {type(data).__name__}, not an object")
    return data


def _typed_dict(model: Any, data: Any) -> dict[str, Any]:
    fields = _fields(data)
    missing = sorted(model.__required_keys__ - fields.keys())
    unknown = sorted(fields.keys() - model.__required_keys__ - model.__optional_keys__)
    if missing or unknown:
        problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(
            unknown
        )
        raise ValueError("; ".join(problems))
    return fields

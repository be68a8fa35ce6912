"""Writes tidings/errors.py from tests/vectors/errors.json, the engine's table of errors."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests/vectors/errors.json"
TARGET = ROOT / "python/tidings/errors.py"

# What each is besides: so that `except ValueError` and `except ConnectionError` do what a Python programmer expects.
ALSO = {
    "INVALID_EVENT": "ValueError, TypeError",
    "CONNECTION_FAILED": "ConnectionError",
    "ACCESS_REFUSED": "PermissionError",
    "TLS_FAILED": "ConnectionError",
    "SUBSCRIPTION_NOT_FOUND": "LookupError",
    "UNSUPPORTED": "NotImplementedError",
    "TIMEOUT": "builtins.TimeoutError",
    "STORE_READ_ONLY": "PermissionError",
}
VALUES = ("INVALID_", "HEADERS_TOO_LARGE", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_TRANSPORT")

HEAD = '''"""The engine's errors: one class for each code of its table, the same codes in every language.

Written by `python/tools/errors.py` from `tests/vectors/errors.json`. Codes and classes are only ever added.
"""

from __future__ import annotations

import builtins

__all__ = [
    "BY_CODE",
{names}]


class TidingsError(Exception):
    """What every error of Tidings is.

    Attributes:
        code: The stable code, the same in every language: `"INVALID_ROUTING_KEY"`.
        retryable: Whether the same call can succeed later without being changed.
        message: What happened, in one sentence.
        field: Name of the argument or option at fault, if there is one.
        value: The value it had, shortened. Never a secret.
        remedy: What to do about it.
        outcome_unknown: Whether it may have taken effect all the same (a publish whose confirm never came).
        causes: What led to it, outermost first.
    """

    code: str = "INTERNAL"
    retryable: bool = False

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        value: str | None = None,
        remedy: str | None = None,
        outcome_unknown: bool = False,
        causes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.remedy = remedy
        self.outcome_unknown = outcome_unknown
        self.causes = causes

    def __str__(self) -> str:
        text = self.message
        if self.field is not None and self.value is not None:
            text += f" ({{self.field}} = {{self.value!r}})"
        if self.remedy:
            text += f"; {{self.remedy}}"
        if self.outcome_unknown:
            text += " [outcome unknown]"
        return f"{{text}} [{{self.code}}]"

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _from_engine,
            (self.code, self.message, self.field, self.value, self.remedy, self.outcome_unknown, list(self.causes)),
        )

'''

TAIL = """
BY_CODE: dict[str, type[TidingsError]] = {{
{entries}}}


def _from_engine(
    code: str,
    message: str,
    field: str | None,
    value: str | None,
    remedy: str | None,
    outcome_unknown: bool,
    causes: list[str],
) -> TidingsError:
    kind = BY_CODE.get(code, TidingsError)
    return kind(message, field=field, value=value, remedy=remedy, outcome_unknown=outcome_unknown, causes=tuple(causes))
"""


def class_name(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_")) + "Error"


def bases(code: str) -> str:
    also = ALSO.get(code) or ("ValueError" if code.startswith(VALUES) else "")
    return "TidingsError" + (f", {also}" if also else "")


def render() -> str:
    table = json.loads(TABLE.read_text())
    classes = sorted(["TidingsError", *(class_name(row["code"]) for row in table)])
    names = "".join(f'    "{name}",\n' for name in classes)
    parts = [HEAD.format(names=names)]
    for row in table:
        meaning = row["meaning"].replace("[Error::outcome_unknown]", "`outcome_unknown`")
        parts.append(
            f'\nclass {class_name(row["code"])}({bases(row["code"])}):\n    """{meaning}"""\n\n'
            f'    code = "{row["code"]}"\n    retryable = {row["retryable"]}\n\n'
        )
    entries = "".join(f'    "{row["code"]}": {class_name(row["code"])},\n' for row in table)
    parts.append(TAIL.format(entries=entries))
    return "".join(parts)


if __name__ == "__main__":
    text = render()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else f"{TARGET} is not what {TABLE} says: run python/tools/errors.py")
    TARGET.write_text(text)

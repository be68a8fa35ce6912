"""DomainEvent and the JSON that it becomes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import pickle
import uuid
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tidings import DomainEvent, errors
from tidings._native import encode_json

VECTORS = Path(__file__).resolve().parents[2] / "tests/vectors"


def test_golden_vectors_are_written_byte_for_byte() -> None:
    for vector in json.loads((VECTORS / "wire/golden.json").read_text()):
        event = DomainEvent.from_json(vector["body"])
        assert event.to_json() == vector["body"]


@pytest.mark.parametrize("vector", json.loads((VECTORS / "wire/refused.json").read_text()), ids=lambda v: v["name"])
def test_refused_vectors_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(errors.TidingsError):
        DomainEvent.from_json(vector["body"])


def test_the_seeds_arguments_and_attributes() -> None:
    event = DomainEvent("user.registered", {"a": 1}, "7", "an-id", 1.5, 2)
    assert event.event_data == {
        "routing_key": "user.registered",
        "data": {"a": 1},
        "domain_object_id": "7",
        "uuid_string": "an-id",
        "timestamp": 1.5,
    }
    assert event.retries == 2
    assert DomainEvent.from_json(event.to_json()) == event
    assert DomainEvent.from_json(event.to_json().encode()) == event
    assert DomainEvent("user.registered").data == {}
    assert event != DomainEvent("user.registered", {"a": 2}, "7", "an-id", 1.5)
    assert event != "user.registered"


def test_events_are_hashable_picklable_and_silent_about_their_data() -> None:
    event = DomainEvent("a.b", {"secret": "hunter2"}, key="k", headers={"h": [1, "x", None, {"t": True}]})
    assert {event: 1}[pickle.loads(pickle.dumps(event))] == 1
    assert pickle.loads(pickle.dumps(event)).headers == event.headers
    assert "hunter2" not in repr(event)


def test_caused_by_takes_over_correlation_and_tenant() -> None:
    cause = DomainEvent("a.b", tenant="t")
    effect = DomainEvent("a.c", {"n": 1}).caused_by(cause)
    assert effect.headers["tidings-correlation-id"] == cause.id
    assert effect.headers["tidings-causation-id"] == cause.id
    assert effect.tenant == "t"
    assert effect.data == {"n": 1}


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        True,
        0,
        -1,
        2**63,
        -(10**400),
        1.5,
        1e300,
        5e-324,
        -0.0,
        "",
        'quote " backslash \\ \b\f\n\r\t \x01 ä €  😀',
        {"a": [1, {"b": None}], "": ""},
        {2: "int", 2.5: "float", True: "bool", None: "none"},
        (1, (2, 3)),
        OrderedDict(b=1, a=2),
        namedtuple("Point", "x y")(1, 2),
        enum.IntEnum("N", "ONE")(1),
        [[[[[[[[[[]]]]]]]]]],
    ],
    ids=repr,
)
def test_what_json_encodes_is_encoded_alike(value: Any) -> None:
    assert json.loads(encode_json(value)) == json.loads(json.dumps(value))


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date


class Order(pydantic.BaseModel):
    id: uuid.UUID
    total: decimal.Decimal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone.utc), "2024-05-01T12:00:00+00:00"),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(minutes=1), 60.0),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (decimal.Decimal("1.10"), "1.10"),
        (Color.RED, "red"),
        (Point(1, dt.date(2024, 5, 1)), {"x": 1, "when": "2024-05-01"}),
        (Order(id=uuid.UUID(int=1), total=decimal.Decimal("2.50")), {"id": str(uuid.UUID(int=1)), "total": "2.50"}),
        (frozenset({3}), [3]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_more_than_json_knows(value: Any, expected: Any) -> None:
    assert json.loads(encode_json({"v": value})) == {"v": expected}


def circular() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"user": {"socket": object()}}, "data['user']['socket'] is a object"),
        ({"list": [1, float("nan")]}, "data['list'][1] is NaN"),
        (float("inf"), "data is inf"),
        ({"b": b"bytes"}, "data['b'] is a bytes"),
        ({("a", 1): 1}, "a key that is a tuple"),
        ("\ud800", "half a surrogate pair"),
        (circular(), "or itself"),
        (decimal.Decimal("NaN"), "NaN"),
    ],
    ids=lambda v: str(type(v)),
)
def test_what_has_no_json_form_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(errors.InvalidEventError) as caught:
        DomainEvent("a.b", value)
    assert words in str(caught.value)
    assert isinstance(caught.value, TypeError | ValueError)


def test_the_data_are_written_when_the_event_is_made() -> None:
    data = {"n": 1}
    event = DomainEvent("a.b", data)
    data["n"] = 2
    assert json.loads(event.to_json())["data"] == {"n": 1}


def test_generic_alias() -> None:
    assert DomainEvent[Order].__origin__ is DomainEvent


@pytest.mark.parametrize("key", ["", "user.*", "a" * 256])
def test_routing_keys_are_checked(key: str) -> None:
    with pytest.raises(errors.InvalidRoutingKeyError) as caught:
        DomainEvent(key, {})
    assert caught.value.code == "INVALID_ROUTING_KEY"
    assert caught.value.remedy


def test_a_naive_datetime_names_no_time() -> None:
    with pytest.raises(TypeError, match="time zone"):
        DomainEvent("a.b", {}, timestamp=dt.datetime(2024, 5, 1))
    aware = dt.datetime(2024, 5, 1, tzinfo=dt.timezone.utc)
    assert DomainEvent("a.b", {}, timestamp=aware).timestamp == aware.timestamp()

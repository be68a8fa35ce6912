"""One class for each code of the engine's table."""

from __future__ import annotations

import builtins
import pickle

import pytest

from tidings import Publisher, _native, errors


def test_every_code_has_a_class_and_every_class_a_code() -> None:
    assert [(code, kind.retryable) for code, kind in errors.BY_CODE.items()] == _native.ERROR_CODES
    for code, kind in errors.BY_CODE.items():
        assert kind.code == code
        assert issubclass(kind, errors.TidingsError)


def test_they_are_what_a_python_programmer_catches() -> None:
    assert issubclass(errors.InvalidUrlError, ValueError)
    assert issubclass(errors.ConnectionFailedError, ConnectionError)
    assert issubclass(errors.TimeoutError, builtins.TimeoutError)


def test_an_error_names_field_value_and_remedy_and_no_password() -> None:
    with pytest.raises(errors.InvalidUrlError) as caught:
        Publisher("amqp://me:hunter2@host/v?frobnicate=1").publish("a.b")
    error = caught.value
    assert error.remedy
    assert error.field
    assert "hunter2" not in str(error) + repr(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.field) == (type(error), str(error), error.field)

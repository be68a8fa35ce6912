"""What every test gets: a RabbitMQ of each generation, a name of its own, a Tidings client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from peer import clean_up
from tidings_client import TidingsClient

# Delays of the peer's README are 1, 5 and 25 s; `make test` runs them ten times faster.
LONG = bool(os.environ.get("TIDINGS_LONG"))
SCALE = 1.0 if LONG else 0.1


@dataclass(frozen=True)
class Broker:
    """A RabbitMQ server."""

    url: str
    generation: int


@pytest.fixture(params=[("AMQP_URL", 3), ("AMQP4_URL", 4)], ids=["rabbitmq3", "rabbitmq4"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each RabbitMQ that is there."""
    variable, generation = request.param
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set: no RabbitMQ {generation} here (tests/services up)")
    return Broker(url, generation)


@pytest.fixture
def name(broker: Broker) -> Iterator[str]:
    """A subscription and a first word of routing keys that nobody else uses."""
    unique = f"interop{uuid.uuid4().hex[:10]}"
    yield unique
    clean_up(broker.url, unique)


@pytest.fixture
def client(broker: Broker) -> Iterator[TidingsClient]:
    """A connected Tidings client."""
    with TidingsClient(broker.url) as connected:
        yield connected


@pytest.fixture
def scale() -> float:
    """How long a second of the peer's documentation lasts here."""
    return SCALE

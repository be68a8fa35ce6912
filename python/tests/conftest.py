"""What every test gets: a broker of each kind, names of its own, child processes that are really ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidings import _native

HERE = Path(__file__).parent
# A shell's background job has SIGINT ignored, and children would inherit that: Ctrl-C could not be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/events.db"


@pytest.fixture(params=["sqlite", "memory", "rabbitmq3", "rabbitmq4"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/events.db"
    if request.param == "memory":
        return f"memory:{uuid.uuid4().hex}"
    return _amqp({"rabbitmq3": "AMQP_URL", "rabbitmq4": "AMQP4_URL"}[request.param])


@pytest.fixture
def amqp_url() -> str:
    return _amqp("AMQP_URL")


def _amqp(variable: str) -> str:
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set: no such RabbitMQ here (tests/services up)")
    return url


@pytest.fixture
def broker(url: str) -> Iterator[_native.Broker]:
    """Also keeps a memory broker alive."""
    broker = _native.Broker.connect(url)
    yield broker
    broker.close()


@pytest.fixture
def name(broker: _native.Broker) -> Iterator[str]:
    """A subscription, and a first word of routing keys, that nobody else uses."""
    unique = f"py{uuid.uuid4().hex[:12]}"
    yield unique
    broker.delete_subscription(unique)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python code in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        path = tmp_path / f"script{len(started)}.py"
        path.write_text(textwrap.dedent(code))
        path_of_tests = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path_of_tests, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **options.pop("env", {})},
            cwd=tmp_path,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], timeout: float = 30) -> tuple[int, str, str]:
    """Waits for its end; code, output and errors."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err

"""The `tidings` command of the package: the engine's own, in this process's interpreter."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tidings import Subscriber, __version__

COMMAND = [sys.executable, "-m", "tidings"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def tidings(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


def test_it_publishes_lists_and_prints_events(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    subscriber.register(print, "audit", "#")
    subscriber.declare()
    subscriber.close()
    published = tidings("publish", "order.placed", '{"id": 7}', "--broker", file_url, "--json")
    assert (published.returncode, published.stderr) == (0, "")
    listed = tidings("subscriptions", "--broker", file_url, "--json")
    assert json.loads(listed.stdout)["ready"] == 1
    printed = tidings("subscribe", "audit", "--limit", "1", "--broker", file_url, "--json")
    assert json.loads(printed.stdout)["data"] == {"id": 7}


def test_its_version_is_that_of_the_package() -> None:
    assert tidings("--version").stdout == f"tidings {__version__}\n"


@pytest.mark.parametrize("arguments", [["publish", "--nothing"], ["run"], ["run", "--processes", "0", "a:b"]])
def test_wrong_arguments_are_status_2(arguments: list[str]) -> None:
    ended = tidings(*arguments)
    assert ended.returncode == 2
    assert "usage: tidings" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_waits(number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen([*COMMAND, "subscriptions", "--broker", url], env=ENVIRONMENT) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                assert process.wait(30) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_reads(number: int) -> None:
    with subprocess.Popen([*COMMAND, "publish", "a.b", "-"], stdin=subprocess.PIPE, env=ENVIRONMENT) as process:
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("needs /proc")
        # Until it has taken over the signal.
        while not _catches(status.read_text(), number):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(30) == 130


def _catches(status: str, number: int) -> bool:
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    threads = next(line for line in status.splitlines() if line.startswith("Threads:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1) and int(threads.split()[1]) > 1


def test_a_signal_lets_subscribe_finish(file_url: str) -> None:
    subscriber = Subscriber(file_url)
    subscriber.register(print, "audit", "#")
    subscriber.declare()
    subscriber.close()
    tidings("publish", "order.placed", "1", "--broker", file_url)
    command = [*COMMAND, "subscribe", "audit", "--broker", file_url, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["data"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_signal_lets_a_relay_hand_over(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/app.db"
    assert tidings("outbox", "install", "--store", store).returncode == 0
    command = [*COMMAND, "outbox", "relay", "--store", store, "--broker", f"sqlite:{tmp_path}/broker.db"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "Relaying. Ctrl-C ends it.\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

"""`tidings run`: a worker that is supervised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidings import Publisher, Subscriber, _native, dead_letters

MODULE = """
    import os, sys, time
    from tidings import DomainEvent, Subscriber

    subscriber = Subscriber(os.environ["URL"])
    other = Subscriber(os.environ["URL"])
    number = 7

    @subscriber.handle("s.#", name="s")
    def handler(event: DomainEvent) -> None:
        if event.data == "crash" and not os.path.exists("crashed"):
            open("crashed", "w").close()
            os._exit(9)
        if event.data == "hold":
            open("holding", "w").close()
            time.sleep(0.5)
        print("handled", event.data, flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, file_url: str) -> Iterator[Any]:
    """Starts `tidings run` in a folder with that module."""
    import textwrap

    (tmp_path / "services.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "URL": file_url}
        process = subprocess.Popen(
            [sys.executable, "-m", "tidings", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    broker = _native.Broker.connect(file_url)
    broker.declare("s", ["s.#"], {})
    broker.close()
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def publish(url: str, *data: Any) -> None:
    with Publisher(url) as publisher:
        for one in data:
            publisher.publish("s.x", one)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_it_consumes_and_drains(worker: Any, file_url: str, number: int, processes: str, tmp_path: Path) -> None:
    process = worker("run", "services:subscriber", "--processes", processes)
    publish(file_url, "one", "hold")
    assert process.stdout.readline() == "handled one\n"
    while not (tmp_path / "holding").exists():
        assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "handled hold\n"), errors
    assert dead_letters("s", file_url) == []


def test_a_crashed_process_is_started_again(worker: Any, file_url: str) -> None:
    process = worker("run", "services:subscriber", "--processes", "2")
    publish(file_url, "crash", "after")
    seen = {process.stdout.readline().strip()}
    # The crashed process's lease ends first, and its event comes again.
    seen.add(process.stdout.readline().strip())
    assert seen == {"handled after", "handled crash"}
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "ended with status 9; the next one starts in" in errors


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere:subscriber", "there is no module 'nowhere'"),
        ("services.py", "not a path"),
        ("services", "Name one: services:subscriber, services:other"),
        ("services:nothing", "module 'services' has no 'nothing'. Name one"),
        ("services:number", "services:number is a int, not a tidings.Subscriber"),
        ("services:other", "services:other has no handler"),
        ("empty", "There is no subscriber in 'empty'"),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_mistakes_get_a_clear_sentence(worker: Any, name: str, words: str, processes: str) -> None:
    process = worker("run", name, "--processes", processes)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert words in errors
    assert "Traceback" not in errors


def test_an_error_inside_the_module_is_shown_whole(worker: Any) -> None:
    process = worker("run", "broken:subscriber")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "nothing_of_that_name" in errors
    assert "Traceback" in errors


def test_subscribers_of_the_module_are_found_by_themselves() -> None:
    from tidings.run import WrongSubscriberError, load

    assert isinstance(load("test_run:ALONE"), Subscriber)
    with pytest.raises(WrongSubscriberError):
        load("test_run:MODULE")


ALONE = Subscriber("memory:")

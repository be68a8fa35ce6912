"""Signals, forks, interpreter exit: each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import finish

from tidings import DomainEvent, Publisher, Subscriber, _native, dead_letters

Script = Callable[..., subprocess.Popen[str]]

# Ten seconds in `make test`, a minute in `make test-long`.
BLOCKED = 60 if os.environ.get("TIDINGS_LONG") else 10

CONSUMER = """
    import os, sys, threading, time
    from tidings import Subscriber

    url, name, mode = sys.argv[1:]
    subscriber = Subscriber(url, drain_timeout=10)

    @subscriber.handle(f"{name}.#", name=name, concurrency=2 if "pool" in mode else 1)
    def handler(event):
        print("begun", flush=True)
        if "hold" in mode:
            time.sleep(0.5)
        if "forever" in mode:
            time.sleep(600)
        print("handled", flush=True)

    subscriber.declare()
    print("ready", flush=True)
    try:
        subscriber.start_consuming()
    finally:
        print("over", flush=True)
    print("returned", flush=True)
"""


def ready(process: subprocess.Popen[str], word: str = "ready") -> None:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line == word, (line, process.stderr.read() if process.stderr and process.poll() is not None else "")


def left(url: str, name: str) -> list[DomainEvent[Any]]:
    """What the subscription still has."""
    seen: list[DomainEvent[Any]] = []
    subscriber = Subscriber(url)

    def handler(event: DomainEvent[Any]) -> None:
        seen.append(event)
        subscriber.stop_consuming()

    subscriber.register(handler, name, f"{name}.#")
    subscriber.start_consuming(timeout=10)
    subscriber.close()
    return seen


@pytest.mark.parametrize("mode", ["idle", "idle-pool"])
def test_ctrl_c_stops_at_once(url: str, broker: _native.Broker, name: str, mode: str, script: Script) -> None:
    if url.startswith("memory:"):
        pytest.skip("memory: is one process")
    process = script(CONSUMER, url, name, mode)
    ready(process)
    with Publisher(url) as publisher:
        publisher.publish(f"{name}.x", {})
    ready(process, "begun")
    ready(process, "handled")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    ready(process, "over")
    assert time.monotonic() - began < 0.5
    code, _, errors = finish(process)
    assert code == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors


@pytest.mark.parametrize("mode", ["forever", "forever-pool"])
def test_ctrl_c_does_not_wait_for_a_handler_and_its_event_comes_again(file_url: str, mode: str, script: Script) -> None:
    process = script(CONSUMER, file_url, "s", mode)
    ready(process)
    with Publisher(file_url) as publisher:
        publisher.publish("s.x", {})
    ready(process, "begun")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    ready(process, "over")
    assert time.monotonic() - began < 0.5
    assert finish(process)[0] == -signal.SIGINT
    assert [event.retries for event in left(file_url, "s")] == [0]


@pytest.mark.parametrize("mode", ["hold", "hold-pool"])
def test_sigterm_drains(url: str, broker: _native.Broker, name: str, mode: str, script: Script) -> None:
    if url.startswith("memory:"):
        pytest.skip("memory: is one process")
    process = script(CONSUMER, url, name, mode)
    ready(process)
    with Publisher(url) as publisher:
        publisher.publish(f"{name}.x", {})
    ready(process, "begun")
    process.terminate()
    code, output, errors = finish(process)
    assert (code, output.split()) == (0, ["handled", "over", "returned"]), errors
    assert dead_letters(name, url) == []


def test_signal_handlers_are_restored_and_the_programs_own_respected(file_url: str) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    subscriber = Subscriber(file_url)
    found = []

    @subscriber.handle("s.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        found.append(signal.getsignal(signal.SIGTERM))
        subscriber.stop_consuming()

    subscriber.declare()
    with Publisher(file_url) as publisher:
        publisher.publish_batch([DomainEvent("s.x"), DomainEvent("s.x")])
    subscriber.start_consuming(timeout=10)
    assert found[0] not in before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

    def own(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, own)
    try:
        subscriber.start_consuming(timeout=10)
        assert found[1] is own
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_a_handler_that_blocks_loses_neither_connection_nor_event(amqp_url: str, script: Script) -> None:
    """Pure Python at full speed, much longer than the heartbeat lasts; other deliveries stay where they are."""
    url = amqp_url + ("&" if "?" in amqp_url else "?") + "heartbeat=1"
    broker = _native.Broker.connect(amqp_url)
    name = f"py-blocks-{os.getpid()}"
    process = script(
        """
        import sys, time
        from tidings import Subscriber

        url, name, seconds = sys.argv[1:]
        subscriber = Subscriber(url)

        @subscriber.handle(f"{name}.#", name=name)
        def handler(event):
            print("begun", event.data, event.retries, flush=True)
            if event.data == 0:
                until = time.monotonic() + float(seconds)
                while time.monotonic() < until:
                    pass
            if event.data == 2:
                health = subscriber.health()[0]
                print("recoveries", health["recoveries"], flush=True)
                subscriber.stop_consuming()

        subscriber.declare()
        print("ready", flush=True)
        subscriber.start_consuming()
        """,
        url,
        name,
        str(BLOCKED),
    )
    try:
        ready(process)
        with Publisher(amqp_url) as publisher:
            publisher.publish_batch(DomainEvent(f"{name}.x", n) for n in range(3))
        code, output, errors = finish(process, timeout=BLOCKED + 30)
        assert (code, output.split("\n")[:-1]) == (0, ["begun 0 0", "begun 1 0", "begun 2 0", "recoveries 0"]), errors
        assert broker.subscriptions() == [] or all(ready == 0 for _, ready, _, _ in broker.subscriptions())
    finally:
        broker.delete_subscription(name)
        broker.close()


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "thread"])
def test_the_interpreter_ends_with_a_subscriber_running(file_url: str, daemon: bool, script: Script) -> None:
    process = script(
        """
        import sys, threading
        from tidings import Publisher, Subscriber

        url, daemon = sys.argv[1:]
        subscriber = Subscriber(url)
        begun = threading.Event()

        @subscriber.handle("s.#", name="s", concurrency=2)
        def handler(event):
            begun.set()

        subscriber.declare()
        publisher = Publisher(url)
        publisher.publish("s.x", {})
        threading.Thread(target=subscriber.start_consuming, daemon=daemon == "True").start()
        begun.wait()
        if daemon == "False":
            subscriber.stop_consuming()
        print("main ends", flush=True)
        """,
        file_url,
        str(daemon),
    )
    code, output, errors = finish(process, timeout=20)
    assert (code, output.strip(), errors) == (0, "main ends", "")


def test_the_interpreter_ends_while_a_daemons_handler_runs(file_url: str, script: Script) -> None:
    process = script(
        """
        import sys, threading, time
        import tidings._exit
        from tidings import Publisher, Subscriber

        tidings._exit.PATIENCE = 0.2
        subscriber = Subscriber(sys.argv[1])
        begun = threading.Event()

        @subscriber.handle("s.#", name="s")
        def handler(event):
            begun.set()
            time.sleep(600)

        subscriber.declare()
        Publisher(sys.argv[1]).publish("s.x", {})
        threading.Thread(target=subscriber.start_consuming, daemon=True).start()
        begun.wait()
        """,
        file_url,
    )
    code, _, errors = finish(process, timeout=20)
    assert (code, errors) == (0, "")


FORK = """
    import os, sys
    import tidings
    from tidings import Publisher, Subscriber, publish_domain_event
    from tidings.errors import ForkedClientError

    url, name = sys.argv[1:]

    def in_child(work):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status

    def publish(data):
        publish_domain_event(f"{name}.x", data, connection_settings=url)

    in_child(lambda: publish("before use"))
    publish("parent")
    unused, used = Publisher(url), Publisher(url)
    used.publish(f"{name}.x", "used")

    def child():
        publish("after use")
        unused.publish(f"{name}.x", "unused handle")
        try:
            used.publish(f"{name}.x", "never")
        except ForkedClientError as error:
            assert "child" in str(error)
        else:
            raise AssertionError("a handle of the parent worked in the child")
        in_child(lambda: publish("grandchild"))
        seen = []
        subscriber = Subscriber(url)
        def handler(event):
            seen.append(event.data)
            if len(seen) == 6:
                subscriber.stop_consuming()
        subscriber.register(handler, name, f"{name}.#")
        subscriber.start_consuming(timeout=20)
        assert sorted(seen) == sorted(
            ["before use", "parent", "used", "after use", "unused handle", "grandchild"]
        ), seen

    in_child(child)
    used.publish(f"{name}.x", "parent again")
    print("fine", flush=True)
"""


def test_forks_before_and_after_use(url: str, broker: _native.Broker, name: str, script: Script) -> None:
    if url.startswith("memory:"):
        pytest.skip("memory: is one process")
    broker.declare(name, [f"{name}.#"], {})
    code, output, errors = finish(script(FORK, url, name), timeout=60)
    assert (code, output.strip()) == (0, "fine"), errors


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(file_url: str, method: str, script: Script) -> None:
    process = script(
        """
        import multiprocessing, sys
        from tidings import Publisher, Subscriber, publish_domain_event

        def work(arguments):
            url, number = arguments
            publish_domain_event("s.x", number, connection_settings=url)
            return number

        if __name__ == "__main__":
            url, method = sys.argv[1:]
            subscriber = Subscriber(url)
            seen = []

            @subscriber.handle("s.#", name="s")
            def handler(event):
                seen.append(event.data)
                if len(seen) == 11:
                    subscriber.stop_consuming()

            subscriber.declare()
            publish_domain_event("s.x", -1, connection_settings=url)
            with multiprocessing.get_context(method).Pool(2) as pool:
                assert pool.map(work, [(url, n) for n in range(10)]) == list(range(10))
                pool.close()
                pool.join()
            subscriber.start_consuming(timeout=20)
            assert sorted(seen) == list(range(-1, 10)), seen
            print("fine", flush=True)
        """,
        file_url,
        method,
    )
    code, output, errors = finish(process, timeout=60)
    assert (code, output.strip()) == (0, "fine"), errors


def test_a_server_that_preloads_and_forks_workers(file_url: str, script: Script) -> None:
    """As gunicorn does: the application publishes at import, then workers fork, serve, and are ended by SIGTERM."""
    process = script(
        """
        import os, signal, sys
        from tidings import Publisher, publish_domain_event

        url = sys.argv[1]
        publish_domain_event("s.x", "preload", connection_settings=url)
        workers = []
        for number in range(2):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                for request in range(20):
                    publish_domain_event("s.x", [number, request], connection_settings=url)
                os.write(writing, b".")
                while True:
                    signal.pause()
            workers.append((pid, reading))
        publish_domain_event("s.x", "master", connection_settings=url)
        for pid, reading in workers:
            os.read(reading, 1)
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print("fine", flush=True)
        """,
        file_url,
    )
    broker = _native.Broker.connect(file_url)
    broker.declare("s", ["s.#"], {})
    code, output, errors = finish(process, timeout=60)
    assert (code, output.strip()) == (0, "fine"), errors
    broker.close()


def test_importing_starts_no_thread_and_loads_little(script: Script) -> None:
    process = script(
        """
        import sys
        before = set(sys.modules)
        import tidings
        import threading
        from tidings import _native
        print(threading.active_count(), _native.threads_started(), *sorted(set(sys.modules) - before))
        """
    )
    code, output, errors = finish(process)
    assert code == 0, errors
    threads, started, *modules = output.split()
    assert (threads, started) == ("1", "False")
    heavy = {
        "typing",
        "logging",
        "re",
        "asyncio",
        "json",
        "inspect",
        "dataclasses",
        "ssl",
        "socket",
        "multiprocessing",
        "subprocess",
        "pydantic",
    }
    assert not heavy & set(modules)
    assert len(modules) < 60, modules


def test_import_without_native_threads_survives_a_bare_exit(script: Script) -> None:
    code, _, errors = finish(script("import tidings"))
    assert (code, errors) == (0, "")


def test_log_lines_reach_logging(tmp_path: Path, script: Script) -> None:
    process = script(
        """
        import logging, sys
        logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
        from tidings import publish_domain_event
        publish_domain_event("nobody.cares", {})
        """,
        env={"TIDINGS_BROKER_URL": ""},
    )
    code, _, errors = finish(process)
    assert code == 0, errors
    assert "tidings WARNING" in errors
    assert f"{tmp_path}/tidings.db" in errors
    assert "no subscription wants this event" in errors

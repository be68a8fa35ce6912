"""A preloading server: the application is imported, and has published, before the workers are forked."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tidings import DomainEvent, Subscriber

APPLICATION = """
import os
from tidings import publish_domain_event

NAME = os.environ["NAME"]
publish_domain_event(f"{NAME}.preloaded", os.getpid())

def application(environ, start_response):
    publish_domain_event(f"{NAME}.requested", os.getpid())
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
REQUESTS = 20


def test_workers_publish_after_a_preload(url: str, name: str, tmp_path: Path) -> None:
    if url.startswith("memory:"):
        pytest.skip("memory: is one process")
    seen: list[tuple[str, int]] = []
    subscriber = Subscriber(url)

    @subscriber.handle(f"{name}.*", name=name)
    def handler(event: DomainEvent[int]) -> None:
        seen.append((event.routing_key, event.data))
        if len(seen) == REQUESTS + 1:
            subscriber.stop_consuming()

    subscriber.declare()
    (tmp_path / "preloaded.py").write_text(APPLICATION)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "TIDINGS_BROKER_URL": url,
        "NAME": name,
    }
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--log-level", "warning"]
        server = subprocess.Popen(
            [*command, "--bind", f"fd://{listening.fileno()}", "preloaded:application"],
            cwd=tmp_path,
            env=environment,
            pass_fds=[listening.fileno()],
        )
        try:
            workers = {ask(listening.getsockname()[1]) for _ in range(REQUESTS)}
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(60)
    assert status == 0
    subscriber.start_consuming()
    subscriber.close()
    published = [process for key, process in seen if key == f"{name}.requested"]
    assert (len(published), set(published)) == (REQUESTS, workers)
    assert [process for key, process in seen if key == f"{name}.preloaded"] == [server.pid]


def ask(port: int) -> int:
    """The process id of the worker that answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200
        return int(response.read())
    finally:
        connection.close()

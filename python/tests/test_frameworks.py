"""The examples for FastAPI and Django are served, asked, and print what is expected."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def _copy(example: str, folder: Path) -> tuple[dict[str, str], list[str]]:
    """The environment to run it in, and what it is to print."""
    shutil.copytree(EXAMPLES / example, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TIDINGS_", "DJANGO_"))}
    environment |= {"PYTHONPATH": str(EXAMPLES.parent / "python"), "TIDINGS_BROKER_URL": "sqlite:tidings.db"}
    return environment, (folder / "expected.txt").read_text().splitlines(keepends=True)


def _post(listening: socket.socket, body: str, kind: str) -> int:
    connection = http.client.HTTPConnection(*listening.getsockname(), timeout=60)
    connection.request("POST", "/orders", body, {"content-type": kind})
    status = connection.getresponse().status
    connection.close()
    return status


def test_fastapi(tmp_path: Path) -> None:
    environment, expected = _copy("fastapi", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "main:app",
            "--log-level",
            "warning",
            "--fd",
            str(listening.fileno()),
        ]
        pipe = {"stdout": subprocess.PIPE, "text": True, "pass_fds": [listening.fileno()]}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipe) as server:
            for line, order in zip(expected, (7, 8), strict=False):
                assert _post(listening, f'{{"id": {order}}}', "application/json") == 202
                assert server.stdout.readline() == line
            server.send_signal(signal.SIGTERM)
            assert server.stdout.read() == expected[2]


def test_django(tmp_path: Path) -> None:
    environment, expected = _copy("django", tmp_path)
    manage = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--settings", "settings", "--verbosity", "0"]
    subprocess.run(manage, cwd=tmp_path, env=environment, check=True, timeout=60)
    worker = [sys.executable, "-m", "tidings", "run", "billing:subscriber"]
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(worker, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as billing,
    ):
        while "billing" not in _subscriptions(tmp_path, environment):
            assert billing.poll() is None
        command = [sys.executable, "-m", "gunicorn", "wsgi", "--log-level", "warning"]
        command += ["--bind", f"fd://{listening.fileno()}"]
        with subprocess.Popen(command, cwd=tmp_path, env=environment, pass_fds=[listening.fileno()]) as server:
            for customer in ("Ada", "nobody", "Bob"):  # nobody's order is rolled back, and not announced
                assert _post(listening, f"customer={customer}", "application/x-www-form-urlencoded") == 200
            assert [billing.stdout.readline() for _ in expected] == expected
            server.send_signal(signal.SIGTERM)
        billing.send_signal(signal.SIGTERM)
        assert billing.stdout.read() == ""


def _subscriptions(folder: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "tidings", "subscriptions", "--json"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout

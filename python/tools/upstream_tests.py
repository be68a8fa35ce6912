"""Runs the tests that domain-event-broker publishes in its sdist against `tidings.compat.domain_event_broker`.

    upstream_tests.py TARGET [pytest arguments]

They run on every RabbitMQ that the environment names (AMQP_URL, AMQP4_URL). Only the tests are taken out of the sdist.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

RELEASE = "3.0.2"
PIP_DOWNLOAD = "-m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all:"
PYTEST = f"-q -c {os.devnull} -p no:cacheprovider -p no:tidings --ds domain_event_broker.tests.django.test_settings"
BROKERS = {"RabbitMQ 3": "AMQP_URL", "RabbitMQ 4": "AMQP4_URL"}


def fetch(folder: Path) -> Path:
    """A folder with the published tests as `domain_event_broker/tests`."""
    package = folder / f"upstream-{RELEASE}" / "domain_event_broker"
    if not (package / "tests").is_dir():
        downloads = folder / "upstream-sdist"
        subprocess.run(
            [sys.executable, *PIP_DOWNLOAD.split(), "--dest", str(downloads), f"domain-event-broker=={RELEASE}"],
            check=True,
        )
        (sdist,) = downloads.glob("domain*broker-*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(downloads, filter="data")
        (published,) = downloads.glob("domain*broker-*/domain_event_broker/tests")
        package.mkdir(parents=True, exist_ok=True)
        # It tells pytest what the tests' package is called; what it imports is the stand-in.
        (package / "__init__.py").write_text("")
        shutil.copytree(published, package / "tests")
        shutil.rmtree(downloads)
    return package


def run(package: Path, url: str, arguments: list[str]) -> int:
    """Runs the tests in this process; pytest's exit code."""
    import pika
    import pytest

    from tidings.compat import install_as_domain_event_broker

    install_as_domain_event_broker()
    import domain_event_broker
    from domain_event_broker import settings

    domain_event_broker.__path__.append(str(package))
    parts = urlsplit(url)
    # Their helpers connect to pika's default broker.
    defaults = pika.connection.Parameters
    defaults.DEFAULT_HOST, defaults.DEFAULT_PORT = parts.hostname or "localhost", parts.port or 5672
    settings.BROKER = f"amqp://guest:guest@{defaults.DEFAULT_HOST}:{defaults.DEFAULT_PORT}/%2F"
    os.chdir(package.parent)
    try:
        return pytest.main([*PYTEST.split(), "--rootdir", str(package.parent), str(package / "tests"), *arguments])
    finally:
        delete_queues(package)


def delete_queues(package: Path) -> None:
    """Deletes the queues that the tests leave behind, some of which are bound to every event of the virtual host."""
    import pika

    sources = [path.read_text() for path in (package / "tests").rglob("*.py")]
    names = sorted({name for source in sources for name in re.findall(r"'(test-[a-z-]+)'", source)})
    connection = pika.BlockingConnection()
    channel = connection.channel()
    for name in names:
        channel.queue_delete(queue=name)
        channel.queue_delete(queue=f"{name}-dl")
    connection.close()


def main() -> int:
    """Runs them on each broker, in a process of its own."""
    folder, *arguments = sys.argv[1:]
    if folder == "--on":
        return run(Path(arguments[0]), arguments[1], arguments[2:])
    package = fetch(Path(folder))
    failed = 0
    for broker, variable in BROKERS.items():
        url = os.environ.get(variable)
        if not url:
            print(f"skipped: domain-event-broker's tests on {broker}: {variable} is not set (tests/services up)")
            continue
        print(f"domain-event-broker's own tests on {broker}", flush=True)
        here = [sys.executable, __file__, "--on", str(package), url, *arguments]
        failed |= subprocess.run(here, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""Builds wheel and sdist in the release profile and tries them as a user would: bare environments, the README.

Called by `tests/python wheel` with the target folder. Says what it found; exit status 1 if it is not as promised.
"""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LARGEST = 8_000_000
IMPORT_CPU_MS = 30.0
README = (PACKAGE / "README.md").read_text()


def check(what: str, holds: bool, detail: str = "") -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {what} {detail}".rstrip(), flush=True)
    if not holds:
        sys.exit(1)


def programs() -> list[str]:
    """The README's Python programs: the worker and the publisher."""
    return re.findall(r"```python\n(.*?)```", README, re.S)


def environment(folder: Path) -> Path:
    """A bare virtual environment; its interpreter."""
    venv.create(folder, with_pip=True)
    return folder / "bin/python"


def install(python: Path, what: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what], check=True)


def cpu_ms(python: Path, code: str) -> float:
    """CPU milliseconds of running `code`: the least of many, as the machine has other things to do as well."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return min(once() for _ in range(15))


def first_program(python: Path, folder: Path, extra: dict[str, str]) -> None:
    """The README's two programs in two processes, the worker first; then the publisher without a worker warns."""
    folder.mkdir()
    worker, signup = programs()
    (folder / "worker.py").write_text(worker)
    (folder / "signup.py").write_text(signup)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
    # PYTHONPATH would hide the installed package behind the checkout.
    clean = {**clean, **extra, "PYTHONPATH": "", "PYTHONUNBUFFERED": "1"}
    options: dict[str, object] = {"cwd": folder, "env": clean, "text": True, "stdout": subprocess.PIPE}
    if not extra:
        alone = subprocess.run([python, "signup.py"], **options, stderr=subprocess.PIPE)  # type: ignore[call-overload]
        check("publishing without a worker warns", "no subscription wants this event" in alone.stderr)
    process = subprocess.Popen([python, "worker.py"], **options)  # type: ignore[call-overload]
    try:
        seen = ""
        for _ in range(100):
            # Until the worker's subscription is there, events go nowhere.
            subprocess.run([python, "signup.py"], **options, stderr=subprocess.DEVNULL)  # type: ignore[call-overload]
            if select.select([process.stdout], [], [], 0.2)[0]:
                seen = process.stdout.readline()
                break
        check("the README's first program", seen.strip() == "welcome, Ada", f"({seen.strip()!r})")
        process.send_signal(signal.SIGINT)
        process.wait(10)
    finally:
        process.kill()
        process.communicate()
        forget = "import tidings; tidings._native.Broker.connect('').delete_subscription('welcome')"
        subprocess.run([python, "-c", forget], **options, stderr=subprocess.DEVNULL)  # type: ignore[call-overload]


def main(target: Path) -> None:
    built = target / "wheels"
    shutil.rmtree(built, ignore_errors=True)
    maturin = [sys.executable, "-m", "maturin"]
    options = {"cwd": PACKAGE, "env": {**os.environ, "CARGO_TARGET_DIR": str(target)}, "check": True}
    # maturin's default level leaves two per cent more.
    build = [*maturin, "build", "--sdist", "--compression-level", "9", "--out", built]
    subprocess.run(build, **options)  # type: ignore[call-overload]
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    size = wheel.stat().st_size
    check("the wheel has at most 8 MB", size <= LARGEST, f"({size / 1e6:.2f} MB)")
    names = zipfile.ZipFile(wheel).namelist()
    check(
        "it has types and the licence of a typed package",
        "tidings/py.typed" in names and "tidings/_native.pyi" in names,
    )
    check("it has no tests", not any("tests/" in name for name in names))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = environment(folder / "wheel")
        install(python, wheel)
        bare, with_tidings = cpu_ms(python, "pass"), cpu_ms(python, "import tidings")
        check("importing is cheap", with_tidings - bare <= IMPORT_CPU_MS, f"({with_tidings - bare:.1f} ms of CPU)")
        version = subprocess.run(
            [folder / "wheel/bin/tidings", "--version"], text=True, capture_output=True, check=True
        )
        check("the command is there", version.stdout.startswith("tidings "))
        threads = "import tidings, os; print(len(os.listdir('/proc/self/task')))"
        alone = subprocess.run([python, "-c", threads], text=True, capture_output=True, check=True)
        check("importing starts no thread", alone.stdout == "1\n")
        first_program(python, folder / "file", {})
        if "AMQP_URL" in os.environ:
            first_program(python, folder / "amqp", {"TIDINGS_BROKER_URL": os.environ["AMQP_URL"]})
        from_sdist = environment(folder / "sdist")
        subprocess.run(
            [from_sdist, "-m", "pip", "install", "--quiet", sdist],
            check=True,
            env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        )
        subprocess.run([from_sdist, "-c", "import tidings"], check=True)
        check("pip install of the sdist", True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

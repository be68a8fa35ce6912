"""Every example in `examples/python` prints what is expected of all languages, on the embedded default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in (EXAMPLES / "expected").glob("*.txt"))


def test_there_is_one_for_each_scenario() -> None:
    assert sorted(path.stem for path in (EXAMPLES / "python").glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_is_expected(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
    environment["PYTHONPATH"] = str(EXAMPLES.parent / "python")
    program = [sys.executable, str(EXAMPLES / "python" / f"{name}.py")]
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (EXAMPLES / "expected" / f"{name}.txt").read_text(encoding="utf-8")

"""The Python code of the READMEs and guides runs as it is printed, page by page, on the embedded default."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "python/README.md",
    "core/docs/python.md",
    "core/docs/migrate-from-domain-event-broker.md",
    "core/docs/migrate-from-an-outbox.md",
]

RUNNER = '''
"""Runs blocks one after the other. What would go on for ever is ended after a moment."""
import ast, asyncio, functools, inspect, json, sys

import tidings
from tidings import aio

MOMENT = 0.3
forever = tidings.Subscriber.start_consuming
tidings.Subscriber.start_consuming = lambda self, timeout=None: forever(self, timeout=timeout or MOMENT)
aio_forever = aio.Subscriber.start_consuming
aio.Subscriber.start_consuming = functools.partialmethod(aio_forever, MOMENT)


def run(awaitable):
    async def for_a_moment():
        task = asyncio.ensure_future(awaitable)
        await asyncio.wait([task], timeout=5 * MOMENT)
        if task.cancel():
            await asyncio.wait([task])
        else:
            task.result()
    asyncio.run(for_a_moment())


# What the pages leave to the reader.
namespace = {"__name__": "page", "gateway_is_up": lambda: True}
for name, line, block in json.load(sys.stdin):
    code = compile("\\n" * line + block, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        run(result)
    main = namespace.pop("main", None)
    if main is not None:
        run(main())
'''


def blocks(page: str) -> list[tuple[str, int, str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return [(page, text[: block.start(1)].count("\n"), block[1]) for block in found]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    import json

    code = blocks(page)
    assert code
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
    environment |= {"PYTHONPATH": str(ROOT / "python"), "TIDINGS_BROKER_URL": "sqlite:tidings.db"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(code),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr

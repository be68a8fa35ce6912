"""The Django app, in a project of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import finish

PROJECT = """
import sys
from io import StringIO
import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction

settings.configure(
    INSTALLED_APPS=["tidings.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TIDINGS_BROKER_URL=sys.argv[1],
)
django.setup()

import tidings
from tidings.django import publish_on_commit

URL = sys.argv[1]

def consume(handler, count):
    left = [count]
    subscriber = tidings.Subscriber(URL)
    def one(event):
        left[0] -= 1
        if not left[0]:
            subscriber.stop_consuming()
        handler(event)
    subscriber.register(one, "billing", ["order.*"])
    subscriber.start_consuming(timeout=20)
    subscriber.close()
"""


def run(script: Callable, code: str, url: str) -> tuple[int, str, str]:
    return finish(script(PROJECT + code, url))


def test_events_of_a_rolled_back_transaction_are_not_published(script: Callable, file_url: str) -> None:
    code, out, err = run(
        script,
        """
subscriber = tidings.Subscriber(URL)
subscriber.register(print, "billing", ["order.*"])
subscriber.declare()
subscriber.close()
try:
    with transaction.atomic():
        publish_on_commit("order.placed", {"n": 1})
        raise KeyError("rolled back")
except KeyError:
    pass
with transaction.atomic():
    publish_on_commit("order.placed", {"n": 2})
publish_on_commit("order.placed", {"n": 3})
consume(lambda event: print(event.data["n"]), 2)
""",
        file_url,
    )
    assert (code, out.split()) == (0, ["2", "3"]), err


def test_the_command_replays_one_all_or_what_is_answered(script: Callable, file_url: str) -> None:
    code, out, err = run(
        script,
        """
def fail(event):
    raise ValueError("no")

subscriber = tidings.Subscriber(URL)
subscriber.register(fail, "billing", ["order.*"])
subscriber.declare()
subscriber.close()
for n in range(4):
    tidings.publish_domain_event("order.placed", {"n": n}, connection_settings=URL)
consume(fail, 4)
out = StringIO()
call_command("replay_domain_event", "billing", stdout=out)
import select
select.select = lambda *_: ([sys.stdin], [], [])
for answer in ("Leave", "Discard", "Obliterate", "replay"):
    sys.stdin = StringIO(answer)
    call_command("replay_domain_event", "billing", "--interactive", stdout=out)
call_command("replay_domain_event", "billing", "--all", stdout=out)
print([line for line in out.getvalue().splitlines() if "remaining" in line])
print(out.getvalue().splitlines()[1:4])
""",
        file_url,
    )
    assert code == 0, err
    assert "['Please specify action for:', '{', '    \"data\": {']" in out
    assert "0 dead-lettered events remaining for billing']" in out


def test_the_check_names_what_is_wrong_without_the_password(script: Callable, tmp_path: Path) -> None:
    code, out, err = run(script, 'call_command("check")', "amqp://guest:hunter2@host:port/")
    assert code == 1
    assert "tidings.E002" in err
    assert "hunter2" not in out + err
    code, out, err = run(script, 'call_command("check")', f"sqlite:{tmp_path}/never.db")
    assert (code, err) == (0, "")
    assert not (tmp_path / "never.db").exists()

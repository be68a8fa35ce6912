"""One catalog for Python and Node: a topic is one subscription, `product.env.broker.topic`, whoever asks for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Broker
from tidings_client import TidingsClient

ROOT = Path(__file__).resolve().parents[2]

# Each reads one line of JSON: `{"do": "publish", "messages": […]}` ends when they are published; `{"do": "subscribe"}`
# says its name, and every message, until its input ends.
NODE = """
import { createInterface } from "node:readline";
import { messageBroker } from "./node/dist/index.mjs";
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { do: work, messages, ...request } = JSON.parse((await lines.next()).value);
const say = (line) => console.log(JSON.stringify(line));
if (work === "publish") {
  for (const message of messages) say(await messageBroker.publish({ ...request, input: { message } }));
} else {
  const callback = (message, { headers, event }) =>
    say({ message, key: event.routingKey, event: headers["tidings-event-name"] });
  const subscription = await messageBroker.subscribe({ ...request, input: { callback } });
  say({ subscribed: subscription.subscription });
  await lines.next();
  await subscription.unsubscribe();
}
"""
PYTHON = """
import asyncio, json, sys
from tidings import message_broker

def say(line):
    print(json.dumps(line), flush=True)

async def callback(message, event):
    say({"message": message, "key": event.routing_key, "event": event.headers["tidings-event-name"]})

async def main():
    request = json.loads(sys.stdin.readline())
    if request.pop("do") == "publish":
        for message in request.pop("messages"):
            await message_broker.publish(**request, input={"message": message})
    else:
        subscription = await message_broker.subscribe(**request, input={"callback": callback})
        say({"subscribed": subscription.subscription})
        await asyncio.to_thread(sys.stdin.readline)
        await subscription.unsubscribe()
    await message_broker.close()

asyncio.run(main())
"""
PROGRAMS = {
    "node": ["node", "--input-type=module", "--eval", NODE],
    "python": [os.environ.get("PYTHON", "python3"), "-c", PYTHON],
}


class Subscribed:
    """A program that is subscribed, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self._lines = process.stdout
        self._early: list[object] = []
        # What waits in the queue may come before the call that subscribes has returned.
        while "subscribed" not in (said := json.loads(self._lines.readline())):
            self._early.append(said)
        self.name = said["subscribed"]

    def messages(self, count: int) -> list[object]:
        """So many of what it gets; waits for them."""
        while len(self._early) < count:
            self._early.append(json.loads(self._lines.readline()))
        taken, self._early = self._early[:count], self._early[count:]
        return taken

    def rest(self) -> list[object]:
        """What it has got besides; it has ended."""
        return self._early + [json.loads(line) for line in self._lines]


class Catalog:
    """Programs with the same catalog file in their environment."""

    def __init__(self, file: Path, product: str, stack: ExitStack) -> None:
        self.product = product
        self._request = {"env": "prd", "event": "orders:new-orders", "product_tag": product}
        self._stack = stack
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        self._environment |= {"TIDINGS_CONFIG": str(file), "PYTHONPATH": str(ROOT / "python")}

    def _start(self, language: str, do: str, **fields: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            PROGRAMS[language],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(self.end, process)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": do, **self._request, **fields}) + "\n")
        process.stdin.flush()
        return process

    def publish(self, language: str, messages: list[object]) -> None:
        """Publishes, and waits until the broker has it all."""
        assert self.end(self._start(language, "publish", messages=messages)) == 0

    def subscribe(self, language: str) -> Subscribed:
        """A program that is subscribed."""
        subscribed = Subscribed(self._start(language, "subscribe"))
        assert subscribed.name == f"{self.product}.prd.orders.new-orders"
        return subscribed

    def line(self, message: object) -> dict[str, object]:
        """What a program says of a message."""
        return {"message": message, "key": f"{self.product}.prd.new-orders", "event": "orders:new-orders"}

    def end(self, process: subprocess.Popen[str]) -> int:
        """Ends a program; its exit code. What it said is left in its output."""
        assert process.stdin is not None
        if not process.stdin.closed:
            process.stdin.close()
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture
def catalog(broker: Broker, name: str, tmp_path: Path) -> Iterator[Catalog]:
    """A product of its own with one RabbitMQ in its catalog."""
    file = tmp_path / "tidings.config.json"
    envs = [{"slug": "prd", "type": "RabbitMQ", "config": {"url": broker.url}}]
    file.write_text(json.dumps({"brokers": [{"tag": "orders", "envs": envs}]}))
    with ExitStack() as stack:
        admin = stack.enter_context(TidingsClient(broker.url))
        stack.callback(lambda: admin.ask("delete", name=f"{name}.prd.orders.new-orders"))
        yield Catalog(file, name, stack)


MESSAGES: list[object] = [{"orderId": "12345", "status": "pending"}, {"name": "Zoë 🌊", "list": [1, 2.5, None]}, "text"]


@pytest.mark.parametrize(("publisher", "subscriber"), [("python", "node"), ("node", "python")])
def test_a_topic_is_the_same_in_both_languages(catalog: Catalog, publisher: str, subscriber: str) -> None:
    """Published before and after somebody of the other language has subscribed; it is one subscription."""
    first = catalog.subscribe(subscriber)
    catalog.publish(publisher, MESSAGES)
    assert first.messages(len(MESSAGES)) == [catalog.line(one) for one in MESSAGES]
    assert catalog.end(first.process) == 0
    catalog.publish(publisher, MESSAGES[:1])
    # What waited for the one language is the other's too.
    assert catalog.subscribe(publisher).messages(1) == [catalog.line(MESSAGES[0])]


def test_processes_of_both_languages_compete_for_a_topic(catalog: Catalog) -> None:
    """Each event goes to one of them."""
    running = [catalog.subscribe(language) for language in PROGRAMS]
    sent: list[object] = [{"n": n} for n in range(120)]
    catalog.publish("python", sent[:60])
    catalog.publish("node", sent[60:])
    handled: list[object] = []
    for one in running:
        # What it has begun it finishes; the rest is for whoever comes next.
        assert catalog.end(one.process) == 0
        handled += one.rest()
    handled += catalog.subscribe("python").messages(len(sent) - len(handled))
    assert sorted(map(json.dumps, handled)) == sorted(json.dumps(catalog.line(one)) for one in sent)

"""The client process for the rigs, in Python (see tests/clients/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import tidings
from tidings import DeadLetter, DomainEvent, Retry, TidingsError, aio

REPORT = 1000
HANGS = 3600.0  # seconds: longer than anybody waits for a handler
THREADS = "--threads" in sys.argv
_writing = threading.Lock()


def say(did: str, **fields: Any) -> None:
    """One line, flushed: what it says has happened."""
    line = json.dumps({"did": did, **fields}, separators=(",", ":")) + "\n"
    with _writing:
        sys.stdout.write(line)
        sys.stdout.flush()


class Handler:
    """A handler that a rig can ask for. It says what it did before it returns, so before the event is acknowledged."""

    def __init__(self, client: Client, name: str, kind: dict[str, Any], report: str) -> None:
        self.client, self.name, self.kind, self.report = client, name, kind, report
        self.begun = 0

    async def on_loop(self, event: DomainEvent[Any]) -> None:
        if pause := self.begin(event):
            await asyncio.sleep(pause)
        self.act(event)

    def on_thread(self, event: DomainEvent[Any]) -> None:
        if pause := self.begin(event):
            time.sleep(pause)
        self.act(event)

    def begin(self, event: DomainEvent[Any]) -> float:
        """Seconds that the handler takes."""
        match self.kind["kind"]:
            case "sleep":
                return float(self.kind["ms"]) / 1000
            case "troubled":
                return self.trouble(event)
            case "unsteady":
                seq = event.data.get("seq")
                say(
                    "begin",
                    **{"name": self.name, "id": event.id, "key": event.key, "seq": seq, "attempt": event.retries},
                    at_us=time.time_ns() // 1000,
                )
                return (1 + (seq or 0) % 5) / 1000
            case _:
                return 0.0

    def trouble(self, event: DomainEvent[Any]) -> float:
        """Slow now and then, hangs once with some events, and may end the process."""
        kind, seq = self.kind, event.data["seq"]
        self.begun += 1
        if self.begun == kind.get("exit_after"):
            os._exit(137)
        if event.retries == 0 and seq % kind["hang_every"] == 0:
            return HANGS
        return float(kind["slow_ms"]) / 1000 if seq % kind["slow_every"] == 0 else 0.0

    def act(self, event: DomainEvent[Any]) -> None:
        kind, seq = self.kind, event.data.get("seq") if isinstance(event.data, dict) else None
        match kind["kind"]:
            case "retry_first":
                chosen = seq is not None and seq % max(kind.get("every", 1), 1) == 0
                again = chosen and event.retries < kind.get("times", 1)
                self.done(event, seq, "retry" if again else "ok", retry(kind, event.retries) if again else None)
            case "retry_always":
                self.done(event, seq, "retry", retry(kind, event.retries))
            case "fail":
                self.done(event, seq, "fail", RuntimeError(kind["message"]))
            case "dead":
                self.done(event, seq, "dead", DeadLetter(kind["reason"]))
            case "unsteady":
                self.unsteady(event, seq)
            case "exit" if seq == kind["seq"]:
                os._exit(137)
            case _:
                self.done(event, seq, "ok", None)

    def unsteady(self, event: DomainEvent[Any], seq: int | None) -> None:
        kind, (mood, times) = self.kind, mood_of(seq or 0)
        young = time.time() - event.timestamp < kind["mended_after_ms"] / 1000
        if mood in ("short", "long") and event.retries < times:
            self.done(event, seq, "retry", Retry(kind[f"{mood}_ms"] / 1000))
        elif mood == "dead" and young:
            self.done(event, seq, "dead", DeadLetter("too-young"))
        else:
            self.done(event, seq, "ok", None)

    def done(self, event: DomainEvent[Any], seq: int | None, outcome: str, error: Exception | None) -> None:
        self.client.handled += 1
        if self.report != "none":
            late = max(0, int((time.time() - event.timestamp) * 1e6))
            fields: dict[str, Any] = {"name": self.name, "id": event.id, "key": event.key, "seq": seq}
            fields |= {"attempt": event.retries, "outcome": outcome, "late_us": late, "at_us": time.time_ns() // 1000}
            if self.report == "events":
                fields |= {"event": event.event_data, "headers": event.headers}
            say("effect", **fields)
        if error is not None:
            raise error


def mood_of(seq: int) -> tuple[str, int]:
    """What `unsteady` does with an event, and how many retries it asks for: the same in every process and language."""
    most = 2**64 - 1
    mixed = ((seq ^ (seq >> 30)) * 0xBF58476D1CE4E5B9) & most
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & most
    times, share = mixed >> 60, (mixed >> 20) % 1000
    if share < 40:
        return "short", 1 + times % 3
    if share < 50:
        return "long", 1 + times % 2
    return ("dead", 0) if share < 54 else ("good", 0)


def retry(kind: dict[str, Any], attempt: int) -> Retry:
    delays = kind.get("delays_ms") or [0]
    return Retry(delays[min(attempt, len(delays) - 1)] / 1000)


class Client:
    """What the process holds between two commands."""

    def __init__(self) -> None:
        self.url = ""
        self.broker: Any = None
        self.publisher: aio.Publisher | None = None
        self.subscribers: list[aio.Subscriber] = []
        self.threads: list[tuple[tidings.Subscriber, threading.Thread]] = []
        self.handled = 0
        self.background: set[asyncio.Task[None]] = set()

    async def run(self, request: dict[str, Any]) -> None:
        """Carries out a command and answers it; `publish` in the background."""
        n, do = request.pop("n", 0), request.pop("do", "")
        method = getattr(self, f"do_{do}", None)
        if method is None:
            say(do, n=n, error={"code": "INVALID_OPTION", "message": f"there is no command {do!r}"})
        elif do == "publish":
            task = asyncio.ensure_future(self.answer(do, n, method, request))
            self.background.add(task)
            task.add_done_callback(self.background.discard)
        else:
            await self.answer(do, n, method, request)

    async def answer(self, do: str, n: int, method: Any, request: dict[str, Any]) -> None:
        try:
            say(do, n=n, **await method(request))
        except TidingsError as error:
            say(do, n=n, error={"code": error.code, "message": str(error)})

    async def do_connect(self, request: dict[str, Any]) -> dict[str, Any]:
        self.url = request["url"]
        self.broker = await asyncio.to_thread(tidings._native.Broker.connect, self.url)
        self.publisher = aio.Publisher(self.url)
        return {"transport": self.broker.transport}

    async def do_publish(self, work: dict[str, Any]) -> dict[str, Any]:
        assert self.publisher is not None
        began, ok, failed = time.monotonic(), 0, 0
        batch, limit = max(work.get("batch") or 1, 1), max(work.get("in_flight") or 1000, 1)
        waiting: set[asyncio.Task[list[tuple[str, TidingsError | None]]]] = set()
        confirmed: list[str] = []
        count, first, rate = work["count"], work.get("first") or 0, work.get("rate")
        sent = 0
        while sent < count or waiting:
            due = count if not rate else min(count, int((time.monotonic() - began) * rate) + 1)
            while sent < due and (not waiting or (len(waiting) + 1) * batch <= limit):
                size = min(batch, count - sent)
                events = [make(work, first + sent + index) for index in range(size)]
                waiting.add(asyncio.ensure_future(self.send(events, work.get("delay_ms"))))
                sent += size
            pause = None if sent == count or not rate else max(0.0, began + sent / rate - time.monotonic())
            if not waiting:
                await asyncio.sleep(pause or 0)
                continue
            done, waiting = await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for identity, error in (one for task in done for one in task.result()):
                if error is None:
                    confirmed.append(identity)
                else:
                    failed += 1
                    unknown = error.outcome_unknown
                    say("failed", id=identity, code=error.code, outcome_unknown=unknown, message=str(error))
            ok += len(confirmed)
            while confirmed:
                say("confirmed", ids=confirmed[:REPORT])
                del confirmed[:REPORT]
        return {"confirmed": ok, "failed": failed, "seconds": time.monotonic() - began}

    async def send(self, events: list[DomainEvent[Any]], delay_ms: int | None) -> list[tuple[str, TidingsError | None]]:
        assert self.publisher is not None
        if len(events) > 1 and delay_ms is None:
            results = await self.publisher.publish_batch(events)
            return [
                (event.id, result if isinstance(result, TidingsError) else None)
                for event, result in zip(events, results, strict=True)
            ]
        sent: list[tuple[str, TidingsError | None]] = []
        for event in events:
            try:
                await self.publisher.publish(event, delay=None if delay_ms is None else delay_ms / 1000)
                sent.append((event.id, None))
            except TidingsError as error:
                sent.append((event.id, error))
        return sent

    async def do_publish_event(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.publisher is not None
        delay = request.get("delay_ms")
        event = DomainEvent(**request["event"], headers=request.get("headers") or {})
        receipt = await self.publisher.publish(event, delay=None if delay is None else delay / 1000)
        return {"id": receipt.id, "routed": receipt.routed}

    async def do_subscribe(self, request: dict[str, Any]) -> dict[str, Any]:
        name, lease, hold = request["name"], request.get("lease_ms"), request.get("hold_max_ms")
        handler = Handler(self, name, request.get("handler") or {"kind": "ok"}, request.get("report") or "effects")
        settings: dict[str, Any] = {
            "concurrency": request.get("concurrency") or 1,
            "prefetch": request.get("prefetch"),
            "ordered": bool(request.get("ordered")),
            "max_retries": request.get("max_retries") or 0,
            "dead_letter": request.get("dead_letter") is not False,
            "compat": bool(request.get("compat")),
            "queue_type": "classic" if request.get("classic") else None,
            "lease": None if lease is None else lease / 1000,
            "hold_max": None if hold is None else hold / 1000,
            "partitions": request.get("partitions"),
        }
        if (limit := request.get("timeout_ms")) is not None:
            # A handler that was given up on is tried again soon.
            policy = tidings.RetryPolicy.fixed(settings.pop("max_retries"), 0.1)
            settings |= {"timeout": limit / 1000, "retry": policy}
        if THREADS:
            threaded = tidings.Subscriber(self.url)
            threaded.register(handler.on_thread, name, request["bindings"], **settings)
            await asyncio.to_thread(threaded.declare)
            thread = threading.Thread(target=threaded.start_consuming, daemon=True)
            thread.start()
            self.threads.append((threaded, thread))
        else:
            subscriber = aio.Subscriber(self.url)
            subscriber.register(handler.on_loop, name, request["bindings"], **settings)
            await subscriber.start()
            self.subscribers.append(subscriber)
        return {}

    async def do_health(self, request: dict[str, Any]) -> dict[str, Any]:
        every = [*self.subscribers, *(subscriber for subscriber, _ in self.threads)]
        return {"subscriptions": [{"name": one.pop("subscription"), **one} for it in every for one in it.health()]}

    async def do_stats(self, request: dict[str, Any]) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        counted = self.publisher.metrics() if self.publisher is not None else []
        return {
            "published": sum(value for name, _, _, value in counted if name == "tidings_published_total"),
            "handled": self.handled,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "rss_bytes": pages * resource.getpagesize(),
            "pid": os.getpid(),
        }

    async def do_depths(self, request: dict[str, Any]) -> dict[str, Any]:
        names = request.get("names") or []
        every = await asyncio.to_thread(self.broker.subscriptions)
        keys = ("name", "ready", "in_flight", "dead")
        return {"subscriptions": [dict(zip(keys, one, strict=True)) for one in every if not names or one[0] in names]}

    async def do_dead_letters(self, request: dict[str, Any]) -> dict[str, Any]:
        found = await aio.dead_letters(request["name"], self.url, limit=request.get("limit") or 100)
        keys = ("id", "routing_key", "reason", "attempts")
        body = [one.body.decode(errors="replace") for one in found]
        dead = [{key: getattr(one, key) for key in keys} for one in found]
        return {"dead": [{**one, "body": text} for one, text in zip(dead, body, strict=True)]}

    async def do_replay(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request.get("action") or "retry"
        report = await aio.replay_dead_letters(request["name"], lambda entry: action, self.url)
        return {key: getattr(report, key) for key in ("seen", "replayed", "discarded", "remaining")}

    async def do_delete(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"existed": await asyncio.to_thread(self.broker.delete_subscription, request["name"])}

    async def do_stop(self, request: dict[str, Any]) -> dict[str, Any]:
        unfinished = sum([await subscriber.stop() for subscriber in self.subscribers])
        for subscriber, thread in self.threads:
            subscriber.stop_consuming()
            await asyncio.to_thread(thread.join)
        self.subscribers, self.threads = [], []
        return {"unfinished": unfinished}


def make(work: dict[str, Any], seq: int) -> DomainEvent[Any]:
    key, prefix, keys = work.get("routing_key") or "rig.event", work["prefix"], work.get("keys") or 0
    # What the five keys and the other fields take, near enough.
    around = 150 + len(key) + 2 * len(prefix)
    data = {"seq": seq, "prefix": prefix, "pad": "x" * max(0, (work.get("bytes") or 0) - around)}
    return DomainEvent(key, data, f"k{key_of(work, seq, keys)}" if keys else None, f"{prefix}{seq}")


def key_of(work: dict[str, Any], seq: int, keys: int) -> int:
    if not work.get("skewed"):
        return seq % keys
    return int(keys ** random.Random(seq).random()) - 1


async def lines() -> AsyncIterator[str]:
    """The lines of stdin."""
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


async def main() -> None:
    client = Client()
    async for line in lines():
        if line.strip():
            await client.run(json.loads(line))
    await client.do_stop({})
    for task in client.background:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())

"""Flight operations: each change of a flight and the event that announces it are one transaction of operations.db."""

import csv
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from tidings import DomainEvent
from tidings.outbox import Outbox

NEW_YORK = timezone(timedelta(hours=-5))


class Change(NamedTuple):
    time: datetime
    status: str
    flight: int  # line of the file
    row: dict[str, str]


def changes(path: str) -> list[Change]:
    """Everything that happened, in the order in which it did: the whole schedule first, ties as in the file."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    opening = day_of(rows[0])
    found = [change for line, row in enumerate(rows, 2) for change in of_flight(opening, line, row)]
    return sorted(found, key=lambda change: (change.status != "scheduled", change.time))


def of_flight(opening: datetime, line: int, row: dict[str, str]) -> Iterator[Change]:
    yield Change(opening, "scheduled", line, row)
    hours, minutes = divmod(int(row["sched_dep_time"]), 100)
    departs = day_of(row) + timedelta(hours=hours, minutes=minutes)
    if not row["dep_delay"]:
        yield Change(departs, "cancelled", line, row)
        return
    departs += timedelta(minutes=int(row["dep_delay"]))
    yield Change(departs, "departed", line, row)
    if row["arr_delay"]:
        yield Change(departs + timedelta(minutes=int(row["air_time"])), "arrived", line, row)
    else:
        yield Change(departs + timedelta(hours=2), "diverted", line, row)


def day_of(row: dict[str, str]) -> datetime:
    return datetime(int(row["year"]), int(row["month"]), int(row["day"]), tzinfo=NEW_YORK)


def event(change: Change) -> DomainEvent:
    row, tail = change.row, change.row["tailnum"] or None
    data = {"id": change.flight, "number": f"{row['carrier']} {row['flight']}", "tail": tail}
    data |= {"origin": row["origin"], "destination": row["dest"]}
    # The aircraft is the ordering key. An event without a key has no order.
    return DomainEvent(f"flight.{change.status}", data, key=tail, timestamp=change.time)


def main() -> None:
    os.chdir(os.environ["AIRPORT_DIR"])
    outbox = Outbox("sqlite:operations.db")
    outbox.install()
    database = sqlite3.connect("operations.db")
    # Commits survive a kill -9; with FULL, the power as well.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE flights (flight INTEGER PRIMARY KEY, status TEXT NOT NULL)")

    happened = changes(os.environ["AIRPORT_DATA"])
    pace = float(os.environ["AIRPORT_PACE"])  # so many times faster than the day was; 0: as fast as it can
    started, clock = time.monotonic(), happened[0].time
    print("ready", flush=True)
    for number, change in enumerate(happened, 1):
        if pace > 0 and change.time > clock:
            time.sleep((change.time - clock).total_seconds() / pace)
            clock = change.time
        with database:  # commits at its end, rolls back on an exception
            database.execute("INSERT OR REPLACE INTO flights VALUES (?, ?)", [change.flight, change.status])
            outbox.add(database, event(change))
        if number % 100 == 0 or number == len(happened):
            print(f"count written {number}", flush=True)
    rate = len(happened) / (time.monotonic() - started)
    print(f"say {len(happened):,} changes committed, each with its event ({rate:,.0f} per second)", flush=True)

    database.close()
    outbox.close()
    sys.stdin.read()  # until the director says that the day is over


if __name__ == "__main__":
    main()

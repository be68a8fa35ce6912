"""A payment is delivered twice and booked once: the inbox remembers it in the handler's own transaction."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from tidings import DomainEvent, Publisher, Subscriber
from tidings.inbox import Inbox

database = sqlite3.connect("bank.db")
database.executescript(Inbox.schema("sqlite"))
database.execute("CREATE TABLE account (balance INTEGER)")
database.execute("INSERT INTO account VALUES (0)")
database.commit()


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    with database:  # commits at its end, rolls back on an exception
        yield database


subscriber = Subscriber()
runs = []


@subscriber.handle("payment.*", name="bank", inbox=Inbox(transaction))
def book(event: DomainEvent, tx: sqlite3.Connection) -> None:
    runs.append(event.id)
    tx.execute("UPDATE account SET balance = balance + ?", [event.data["amount"]])


def acked() -> float:
    return sum(value for name, _, _, value in subscriber.metrics() if name == "tidings_acked_total")


subscriber.declare()
payment = DomainEvent("payment.received", {"amount": 100})
with Publisher() as publisher:
    publisher.publish(payment)
    publisher.publish(payment)
while acked() < 2:
    subscriber.start_consuming(timeout=0.1)

(balance,) = database.execute("SELECT balance FROM account").fetchone()
print(f"delivered 2 times, handled {len(runs)} time, balance {balance}")

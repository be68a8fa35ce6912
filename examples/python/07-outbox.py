"""An order and its event are one transaction of the program's own database; a relay publishes what was committed."""

import sqlite3
from contextlib import closing

from tidings import DomainEvent, Subscriber
from tidings.outbox import Outbox

outbox = Outbox("sqlite:shop.db")
outbox.install()

with closing(sqlite3.connect("shop.db")) as database:
    database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    for order in (7, 8):
        with database:  # commits at its end, rolls back on an exception
            database.execute("INSERT INTO orders VALUES (?)", [order])
            outbox.add(database, DomainEvent("order.placed", {"id": order}))
            if order == 8:
                database.rollback()
        print(f"order {order} is {'rolled back' if order == 8 else 'committed'}")

subscriber = Subscriber()


@subscriber.handle("order.*", name="billing")
def bill(event: DomainEvent) -> None:
    print(f"billing order {event.data['id']}")
    subscriber.stop_consuming()


subscriber.declare()
with outbox.relay():  # or, as a process of its own: tidings outbox relay
    subscriber.start_consuming()
    outbox.drain()
print(f"{outbox.status().pending} rows wait in the outbox")
outbox.close()

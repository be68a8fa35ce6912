"""The outbox: an event is published if and only if the transaction that wrote it commits.

from tidings import DomainEvent
from tidings.outbox import Outbox

outbox = Outbox("postgres://me@localhost/app")

with psycopg.connect(...) as connection:
    connection.execute("UPDATE …")
    outbox.add(connection, DomainEvent("order.placed", {"order": 7}))

relay = outbox.relay("amqp://localhost")     # in this process, or: tidings outbox relay
"""

from ._facade import Outbox, OutboxEvent
from ._relay import FailedRow, OutboxStatus, Relay, RelayHealth

__all__ = ["FailedRow", "Outbox", "OutboxEvent", "OutboxStatus", "Relay", "RelayHealth"]

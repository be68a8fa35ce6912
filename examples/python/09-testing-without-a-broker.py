"""An hour of retries in a test that takes a millisecond: a broker in memory whose time stands still.

In a test the broker is the pytest fixture `tidings_broker`.
"""

from tidings import DomainEvent, Publisher, RetryPolicy, Subscriber
from tidings.testing import TestBroker

broker = TestBroker()
subscriber = Subscriber(broker.url)
begun = broker.now()


@subscriber.handle("order.*", name="payments", retry=RetryPolicy.fixed(2, delay=30 * 60))
def pay(event: DomainEvent) -> None:
    minutes = round((broker.now() - begun) / 60)
    print(f"attempt {event.retries + 1} after {minutes} minutes")
    if event.retries < 2:
        raise ConnectionError("not yet")


broker.declare(subscriber)
with Publisher(broker.url) as publisher:
    publisher.publish("order.placed", {"id": 7})
for _ in range(3):
    broker.settle_all(subscriber)
    broker.advance(30 * 60)
broker.close()

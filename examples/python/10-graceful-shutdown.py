"""Told to stop: the handler that runs finishes, the other events go back with no attempt spent."""

import time

from tidings import DomainEvent, Publisher, Subscriber

subscriber = Subscriber(drain_timeout=10)
handled = []


@subscriber.handle("report.*", name="reports")
def report(event: DomainEvent) -> None:
    print(f"report {event.data} begins")
    print("asked to stop")
    subscriber.stop_consuming()  # in a service: SIGTERM
    time.sleep(0.2)
    print(f"report {event.data} is done")
    handled.append(event.data)


subscriber.declare()
with Publisher() as publisher:
    for number in (1, 2, 3):
        publisher.publish("report.wanted", number)
subscriber.start_consuming()
unfinished = 1 - len(handled)

next_process = Subscriber()
waiting = []


@next_process.handle("report.*", name="reports")
def count(event: DomainEvent) -> None:
    assert event.retries == 0
    waiting.append(event.data)
    if len(waiting) == 2:
        next_process.stop_consuming()


next_process.start_consuming(timeout=10)
print(f"{unfinished} unfinished, {len(waiting)} wait for the next process")

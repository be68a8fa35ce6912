"""The subscription `welcome` greets everybody who registers."""

from dataclasses import dataclass

from tidings import DomainEvent, Subscriber, publish_domain_event


@dataclass
class Registered:
    name: str


subscriber = Subscriber()
greeted = []


@subscriber.handle("user.registered", name="welcome", model=Registered)
def welcome(event: DomainEvent[Registered]) -> None:
    print(f"welcome, {event.data.name}")  # returning acknowledges the event
    greeted.append(event.data.name)
    if len(greeted) == 2:
        subscriber.stop_consuming()


# The subscription exists from here on, and collects events even while nobody runs.
subscriber.declare()
for name in ("Ada", "Grace"):
    publish_domain_event("user.registered", {"name": name})
subscriber.start_consuming()

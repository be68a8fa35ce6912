"""An order without an address becomes a dead letter; after the fix it is looked at and replayed."""

from tidings import DeadLetter, DomainEvent, Subscriber, dead_letters, publish_domain_event, replay_dead_letters

subscriber = Subscriber()
pickup_is_known = False


@subscriber.handle("order.*", name="shipping")
def ship(event: DomainEvent) -> None:
    subscriber.stop_consuming()
    if event.data.get("address") is None and not pickup_is_known:
        print("order 7 has no address")
        raise DeadLetter("no-address")
    print("order 7 is shipped")


subscriber.declare()
publish_domain_event("order.placed", {"id": 7})
subscriber.start_consuming()

# Looking changes nothing. A dead letter keeps why, when and how often.
for dead in dead_letters("shipping", limit=10):
    print(f"dead letter: {dead.routing_key}, {dead.reason}, {dead.attempts} attempt")

pickup_is_known = True
report = replay_dead_letters("shipping", reason="no-address")
print(f"replayed {report.replayed}, {report.remaining} remain")
subscriber.start_consuming()

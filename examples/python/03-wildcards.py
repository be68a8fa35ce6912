"""Three subscriptions with patterns: `*` is exactly one word, `#` any number of them."""

from collections.abc import Callable

from tidings import DomainEvent, Subscriber, publish_domain_event

subscriber = Subscriber()
got: dict[str, list[str]] = {"users": [], "registrations": [], "audit": []}


def remember(name: str) -> Callable[[DomainEvent], None]:
    def handler(event: DomainEvent) -> None:
        got[name].append(event.routing_key)
        if sum(len(keys) for keys in got.values()) == 2 + 2 + 4:
            subscriber.stop_consuming()

    return handler


subscriber.register(remember("users"), "users", ["user.*"])
subscriber.register(remember("registrations"), "registrations", ["*.registered"])
subscriber.register(remember("audit"), "audit", ["#"])
subscriber.declare()

for routing_key in ("user.registered", "user.deleted", "company.registered", "order.line.added"):
    publish_domain_event(routing_key, {})
subscriber.start_consuming()

# Each subscription has its own copy of every event that it is bound to.
for name, routing_keys in got.items():
    print(f"{name}: {', '.join(routing_keys)}")

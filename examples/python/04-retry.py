"""A gateway is down twice; the retry policy tries again, with growing delays."""

from tidings import DomainEvent, RetryPolicy, Subscriber, publish_domain_event

subscriber = Subscriber()

# 100 ms, 200 ms, 400 ms … at most 5 s, and at most five times.
policy = RetryPolicy.exponential(5, initial=0.1, factor=2.0, max=5.0)


@subscriber.handle("order.placed", name="payments", retry=policy)
def pay(event: DomainEvent) -> None:
    attempt = event.retries + 1  # how often this event was tried before: it travels with the event
    if attempt < 3:
        print(f"attempt {attempt}: the gateway is down")
        raise ConnectionError("the gateway is down")  # any exception is retried
    print(f"attempt {attempt}: paid")
    subscriber.stop_consuming()


subscriber.declare()
publish_domain_event("order.placed", {"id": 7})
subscriber.start_consuming()

"""Two accounts, four handlers at once: the events of each account stay in order."""

from collections import defaultdict

from tidings import DomainEvent, Publisher, Subscriber

subscriber = Subscriber()
ledger: defaultdict[str, list[int]] = defaultdict(list)


# Different keys run at once; the events of one key run one at a time, in the order of their publishing.
@subscriber.handle("account.*", name="ledger", ordered=True, concurrency=4)
def book(event: DomainEvent) -> None:
    ledger[event.key].append(event.data)
    if sum(len(entries) for entries in ledger.values()) == 10:
        subscriber.stop_consuming()


subscriber.declare()
with Publisher() as publisher:
    publisher.publish_batch(
        DomainEvent("account.changed", n, key=account) for n in range(1, 6) for account in ("alice", "bob")
    )
subscriber.start_consuming()

for account, entries in sorted(ledger.items()):
    print(f"{account}: {' '.join(map(str, entries))}")

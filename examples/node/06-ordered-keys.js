// Two accounts, four handlers at once: the events of each account stay in order.

import { DomainEvent, Publisher, Subscriber } from "tidings";

const ledger = { alice: [], bob: [] };
let left = 10;
const subscriber = new Subscriber();
const booked = new Promise((resolve) => {
  // Different keys run at once; the events of one key run one at a time, in the order of their publishing.
  subscriber.handle("account.*", { name: "ledger", ordered: true, concurrency: 4 }, async (event) => {
    ledger[event.key].push(event.data);
    left -= 1;
    if (left === 0) resolve();
  });
});
const running = await subscriber.start();

const events = [];
for (let n = 1; n <= 5; n += 1) {
  for (const key of ["alice", "bob"]) events.push(new DomainEvent("account.changed", n, { key }));
}
const publisher = new Publisher();
await publisher.publishBatch(events);
await booked;

for (const [account, entries] of Object.entries(ledger)) console.log(`${account}: ${entries.join(" ")}`);
await running.stop();
await publisher.close();
await subscriber.close();

// An order and its event are one transaction of the program's own database; a relay publishes what was committed.

import { DatabaseSync } from "node:sqlite";
import { DomainEvent, Outbox, Subscriber } from "tidings";

const outbox = new Outbox("sqlite:shop.db");
await outbox.install();

const database = new DatabaseSync("shop.db");
database.exec("CREATE TABLE orders (id INTEGER PRIMARY KEY)");
for (const order of [7, 8]) {
  database.exec("BEGIN");
  database.prepare("INSERT INTO orders VALUES (?)").run(order);
  outbox.add(database, new DomainEvent("order.placed", { id: order }));
  database.exec(order === 8 ? "ROLLBACK" : "COMMIT");
  console.log(`order ${order} is ${order === 8 ? "rolled back" : "committed"}`);
}
database.close();

const subscriber = new Subscriber();
const billed = new Promise((resolve) => {
  subscriber.handle("order.*", { name: "billing" }, async (event) => {
    console.log(`billing order ${event.data.id}`);
    resolve();
  });
});
const running = await subscriber.start();
const relay = await outbox.relay(); // or, as a process of its own: npx tidings outbox relay
await billed;
await outbox.drain();
console.log(`${(await outbox.status()).pending} rows wait in the outbox`);
await relay.stop();
await outbox.close();
await running.stop();
await subscriber.close();

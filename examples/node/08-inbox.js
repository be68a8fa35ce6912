// A payment is delivered twice and booked once: the inbox remembers it in the handler's own transaction.

import { DatabaseSync } from "node:sqlite";
import { setTimeout } from "node:timers/promises";
import { DomainEvent, Inbox, Publisher, Subscriber } from "tidings";

const database = new DatabaseSync("bank.db");
database.exec(Inbox.schema("sqlite"));
database.exec("CREATE TABLE account (balance INTEGER); INSERT INTO account VALUES (0)");

const inbox = new Inbox(async (body) => {
  database.exec("BEGIN");
  try {
    await body(database);
    database.exec("COMMIT");
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
});

let runs = 0;
const subscriber = new Subscriber();
subscriber.handle("payment.*", { name: "bank", inbox }, async (event, tx) => {
  runs += 1;
  tx.prepare("UPDATE account SET balance = balance + ?").run(event.data.amount);
});
const running = await subscriber.start();

const publisher = new Publisher();
const payment = new DomainEvent("payment.received", { amount: 100 });
await publisher.publish(payment);
await publisher.publish(payment);
const acked = () => running.metrics().find((one) => one.name === "tidings_acked_total")?.value ?? 0;
while (acked() < 2) await setTimeout(10);

const { balance } = database.prepare("SELECT balance FROM account").get();
console.log(`delivered 2 times, handled ${runs} time, balance ${balance}`);
await running.stop();
await publisher.close();
await subscriber.close();

// An order without an address becomes a dead letter; after the fix it is looked at and replayed.

import { Broker, DeadLetter, Publisher, replayAll, Subscriber } from "tidings";

const broker = new Broker();
let pickupIsKnown = false;

const subscriber = new Subscriber(broker);
const shipped = new Promise((resolve) => {
  subscriber.handle("order.*", { name: "shipping" }, async (event) => {
    if (event.data.address === undefined && !pickupIsKnown) {
      console.log("order 7 has no address");
      throw new DeadLetter("no-address");
    }
    console.log("order 7 is shipped");
    resolve();
  });
});
const failed = new Promise((resolve) => subscriber.once("failed", resolve));
let running = await subscriber.start();
await new Publisher(broker).publish("order.placed", { id: 7 });
await failed;
await running.stop();

// Looking changes nothing. A dead letter keeps why, when and how often.
for (const dead of await broker.deadLetters("shipping", { limit: 10 })) {
  console.log(`dead letter: ${dead.routingKey}, ${dead.reason}, ${dead.attempts} attempt`);
}

pickupIsKnown = true;
const report = await replayAll("shipping", { broker, reason: "no-address" });
console.log(`replayed ${report.replayed}, ${report.remaining} remain`);
running = await subscriber.start();
await shipped;
await running.stop();
await broker.close();

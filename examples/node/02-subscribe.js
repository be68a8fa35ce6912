// The subscription `welcome` greets everybody who registers.

import { Publisher, Subscriber } from "tidings";

let left = 2;
const subscriber = new Subscriber();
const greeted = new Promise((resolve) => {
  subscriber.handle("user.registered", { name: "welcome" }, async (event) => {
    console.log(`welcome, ${event.data.name}`); // returning acknowledges the event
    left -= 1;
    if (left === 0) resolve();
  });
});
// The subscription exists from here on, and collects events even while nobody runs.
const running = await subscriber.start();

const publisher = new Publisher();
for (const name of ["Ada", "Grace"]) await publisher.publish("user.registered", { name });
await greeted;
await running.stop();
await publisher.close();
await subscriber.close();

// Told to stop: the handler that runs finishes, the other events go back with no attempt spent.

import { setTimeout } from "node:timers/promises";
import { Broker, Publisher, Subscriber } from "tidings";

const broker = new Broker();
const subscriber = new Subscriber(broker, { drainTimeout: { seconds: 10 } });
const begun = new Promise((resolve) => {
  subscriber.handle("report.*", { name: "reports" }, async (event) => {
    console.log(`report ${event.data} begins`);
    resolve();
    await setTimeout(200);
    console.log(`report ${event.data} is done`);
  });
});
const running = await subscriber.start();
const publisher = new Publisher(broker);
for (const number of [1, 2, 3]) await publisher.publish("report.wanted", number);
await begun;

// In a service: start({ handleSignals: true }), and SIGTERM
console.log("asked to stop");
const unfinished = await running.stop();
const reports = (await broker.subscriptions()).find((one) => one.name === "reports");
console.log(`${unfinished} unfinished, ${reports.ready} wait for the next process`);
await broker.close();

// A gateway is down twice; the retry policy tries again, with growing delays.

import { Publisher, RetryPolicy, Subscriber } from "tidings";

// 100 ms, 200 ms, 400 ms … at most 5 s, and at most five times.
const retry = RetryPolicy.exponential({ maxRetries: 5, initial: { ms: 100 }, factor: 2, max: { seconds: 5 } });

const subscriber = new Subscriber();
const paid = new Promise((resolve) => {
  subscriber.handle("order.placed", { name: "payments", retry }, async (event) => {
    const attempt = event.retries + 1; // how often this event was tried before: it travels with the event
    if (attempt < 3) {
      console.log(`attempt ${attempt}: the gateway is down`);
      throw new Error("the gateway is down"); // any error is retried
    }
    console.log(`attempt ${attempt}: paid`);
    resolve();
  });
});
const running = await subscriber.start();

const publisher = new Publisher();
await publisher.publish("order.placed", { id: 7 });
await paid;
await running.stop();
await publisher.close();
await subscriber.close();

// Three subscriptions with patterns: `*` is exactly one word, `#` any number of them.

import { Publisher, Subscriber } from "tidings";

const got = { users: [], registrations: [], audit: [] };
const patterns = { users: "user.*", registrations: "*.registered", audit: "#" };

let left = 2 + 2 + 4;
const subscriber = new Subscriber();
const all = new Promise((resolve) => {
  for (const [name, pattern] of Object.entries(patterns)) {
    subscriber.handle(pattern, { name }, async (event) => {
      got[name].push(event.routingKey);
      left -= 1;
      if (left === 0) resolve();
    });
  }
});
const running = await subscriber.start();

const publisher = new Publisher();
for (const routingKey of ["user.registered", "user.deleted", "company.registered", "order.line.added"]) {
  await publisher.publish(routingKey, {});
}
await all;

// Each subscription has its own copy of every event that it is bound to.
for (const [name, routingKeys] of Object.entries(got)) console.log(`${name}: ${routingKeys.join(", ")}`);
await running.stop();
await publisher.close();
await subscriber.close();

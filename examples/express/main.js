// A shop with Express: it announces orders, and a subscription in the same process bills them.
//   curl localhost:3000/orders -H 'content-type: application/json' -d '{"id": 7}'

import express from "express";
import { Publisher, RetryPolicy, Subscriber } from "tidings";

const publisher = new Publisher();
const subscriber = new Subscriber();
const retry = RetryPolicy.exponential({ maxRetries: 5, initial: { seconds: 1 }, max: { seconds: 60 } });
subscriber.handle("order.*", { name: "billing", concurrency: 8, retry }, async (event) => {
  console.log(`billing order ${event.data.id}`);
});
const running = await subscriber.start();

const app = express();
app.use(express.json());
app.post("/orders", async (request, response) => {
  const receipt = await publisher.publish("order.placed", request.body, { domainObjectId: String(request.body.id) });
  response.status(202).json({ wanted: receipt.routed }); // durable by now, whatever becomes of this process
});
const server = app.listen(process.env.PORT ?? 3000, () => console.error(`listening on ${server.address().port}`));

process.once("SIGTERM", () =>
  server.close(async () => {
    await running.stop(); // handlers finish, and what is left goes back
    await publisher.close();
    await subscriber.close();
    console.log("drained");
  }),
);

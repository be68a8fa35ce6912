// rabbitmq-client: its Publisher with confirms, its Consumer, which acknowledges what its handler returns from.

import { createRequire } from "node:module";
import { byHand } from "./event.mjs";

const { Connection } = createRequire(`${process.env.TIDINGS_BENCH_PEERS}/`)("rabbitmq-client");

export async function publisher({ url, exchange }) {
  const connection = new Connection(url);
  const publisher = connection.createPublisher({ confirm: true });
  return {
    send(routingKey, data, key) {
      const { id, body } = byHand(routingKey, data, key);
      return publisher.send(
        { exchange, routingKey, durable: true, messageId: id, contentType: "application/json" },
        body,
      );
    },
    async close() {
      await publisher.close();
      await connection.close();
    },
  };
}

export async function consumer({ url, queue, prefetch }) {
  const connection = new Connection(url);
  await connection.onConnect();
  let consumer;
  return {
    async start(handle) {
      // `durable` is said again because the library declares what it consumes from; passive, so that it changes nothing.
      const options = { queue, queueOptions: { passive: true }, qos: { prefetchCount: prefetch } };
      consumer = connection.createConsumer(options, async (message) => {
        // It has parsed the body already if the content type says JSON.
        const event = Buffer.isBuffer(message.body) ? JSON.parse(message.body) : message.body;
        handle(event.data);
      });
      await new Promise((ready) => consumer.on("ready", ready));
    },
    async close() {
      await consumer.close();
      await connection.close();
    },
  };
}

// amqplib: a confirm channel with a callback for each publish; one ack for each event.

import { createRequire } from "node:module";
import { byHand } from "./event.mjs";

const amqplib = createRequire(`${process.env.TIDINGS_BENCH_PEERS}/`)("amqplib");

export async function publisher({ url, exchange }) {
  const connection = await amqplib.connect(url);
  const channel = await connection.createConfirmChannel();
  return {
    send(routingKey, data, key) {
      const { id, body } = byHand(routingKey, data, key);
      const options = { persistent: true, messageId: id, contentType: "application/json" };
      return new Promise((resolve, reject) => {
        channel.publish(exchange, routingKey, body, options, (error) => (error ? reject(error) : resolve()));
      });
    },
    close: () => connection.close(),
  };
}

export async function consumer({ url, queue, prefetch }) {
  const connection = await amqplib.connect(url);
  const channel = await connection.createChannel();
  await channel.prefetch(prefetch);
  return {
    async start(handle) {
      const handler = async (event) => handle(event.data);
      await channel.consume(queue, async (message) => {
        await handler(JSON.parse(message.content));
        channel.ack(message);
      });
    },
    close: () => connection.close(),
  };
}

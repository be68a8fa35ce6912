// amqplib: a confirm channel with a callback for each publish; one ack for each event.

import { createRequire } from "node:module";
import { byHand } from "./event.mjs";

const amqplib = createRequire(`${process.env.TIDINGS_BENCH_PEERS}/`)("amqplib");

/** `mandatory`: does all that Tidings does, which tells its callers whether a queue took the event. */
export async function publisher({ url, exchange, mandatory = false }) {
  const connection = await amqplib.connect(url);
  const channel = await connection.createConfirmChannel();
  const unrouted = new Set();
  channel.on("return", ({ properties }) => unrouted.add(properties.messageId));
  return {
    send(routingKey, data, key) {
      const { id, body } = byHand(routingKey, data, key);
      const options = { persistent: true, messageId: id, contentType: "application/json" };
      if (mandatory) Object.assign(options, { mandatory, timestamp: Math.floor(Date.now() / 1000) });
      return new Promise((resolve, reject) => {
        const confirmed = (error) => (error ? reject(error) : resolve({ id, routed: !unrouted.delete(id) }));
        channel.publish(exchange, routingKey, body, options, confirmed);
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

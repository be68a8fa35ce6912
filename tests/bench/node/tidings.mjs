// Tidings, as its users write it.

import { createRequire } from "node:module";

const { Broker, DomainEvent, Publisher, Subscriber } = createRequire(import.meta.url)("../../../node/dist/index.js");

export async function publisher({ url, exchange, batch }) {
  const publisher = new Publisher(url, { exchange });
  return {
    send: batch ? undefined : (routingKey, data, key) => publisher.publish(routingKey, data, { domainObjectId: key }),
    sendBatch: async (events) => {
      const made = events.map(
        ({ routingKey, data, key }) => new DomainEvent(routingKey, data, { domainObjectId: key }),
      );
      for (const one of await publisher.publishBatch(made)) if (one.status === "rejected") throw one.reason;
    },
    close: () => publisher.close(),
  };
}

export async function consumer({ url, exchange, queue, classic, prefetch, concurrency }) {
  const broker = new Broker(url);
  await broker.connect();
  const subscriber = new Subscriber(broker);
  return {
    async start(handle) {
      const options = { name: queue, exchange, queueType: classic ? "classic" : "quorum", prefetch, concurrency };
      subscriber.handle("#", options, async (event) => handle(event.data));
      await subscriber.start();
    },
    async close() {
      await subscriber.stop();
      await broker.close();
    },
  };
}

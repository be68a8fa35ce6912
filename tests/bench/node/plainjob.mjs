// plainjob on better-sqlite3: it opens its file with synchronous=NORMAL, and marks what is done and keeps it.

import { createRequire } from "node:module";
import { byHand, payload, ROUTING_KEY } from "./event.mjs";

const require = createRequire(`${process.env.TIDINGS_BENCH_PEERS}/`);
const Database = require("better-sqlite3");
const { better, defineQueue, defineWorker } = await import(require.resolve("plainjob"));

const JOB = "bench";
const BATCH = 100;
const silent = { error() {}, warn() {}, info() {}, debug() {} };

function open(url) {
  const path = url.replace(/^sqlite:/, "").split("?")[0];
  // What is built already is not to be quoted as a string once more.
  const serializer = (data) => data;
  return defineQueue({ connection: better(new Database(`${path}-plainjob`)), logger: silent, serializer });
}

const text = (routingKey, data, key) => byHand(routingKey, data, key).body.toString();

export async function publisher({ url, batch }) {
  const queue = open(url);
  return {
    send: batch ? undefined : async (routingKey, data, key) => queue.add(JOB, text(routingKey, data, key)),
    sendBatch: async (events) =>
      queue.addMany(
        JOB,
        events.map(({ routingKey, data, key }) => text(routingKey, data, key)),
      ),
    close: async () => queue.close(),
  };
}

/** Fills its file first, with `count` jobs. */
export async function consumer({ url, count }) {
  const queue = open(url);
  for (let first = 0; first < count; first += BATCH) {
    const numbers = Array.from({ length: Math.min(BATCH, count - first) }, (_, at) => first + at);
    queue.addMany(
      JOB,
      numbers.map((n) => text(ROUTING_KEY, payload(n), String(n))),
    );
  }
  let worker;
  return {
    async start(handle) {
      const job = async ({ data }) => handle(JSON.parse(data).data);
      worker = defineWorker(JOB, job, { queue, logger: silent });
      worker.start();
    },
    async close() {
      await worker.stop();
      queue.close();
    },
  };
}

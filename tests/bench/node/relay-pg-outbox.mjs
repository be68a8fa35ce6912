// pg-transactional-outbox's polling listener relaying to RabbitMQ with amqplib, as the rig's settings say:
// `relay-pg-outbox.mjs SETTINGS`. Makes its table and says `installed`; at a line it starts, and says `ready`; it ends with
// its input.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.TIDINGS_BENCH_PEERS}/`);
const amqplib = require("amqplib");
const { Pool } = require("pg");
const { DatabaseSetup, getDisabledLogger, initializePollingMessageListener } = require("pg-transactional-outbox");

const settings = JSON.parse(process.argv[2]);
const { database, table, connections, batch, exchange, routing_key: routingKey } = settings;
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const names = { outboxOrInbox: "outbox", database: "", schema: "public", table, listenerRole: "" };
const next = `${table}_next`;

const admin = new Pool({ connectionString: database, max: 1 });
await admin.query(
  [
    // The check and the indexes have names that are not the table's: one such table in a database at a time.
    DatabaseSetup.dropAndCreateTable(names),
    DatabaseSetup.createPollingFunction({ ...names, nextMessagesName: next }),
    DatabaseSetup.setupPollingIndexes({ ...names, nextMessagesName: next }),
  ].join(";\n"),
);
process.stdout.write("installed\n");
await lines.next();

const connection = await amqplib.connect(settings.broker);
const channel = await connection.createConfirmChannel();
const options = { persistent: true, mandatory: true, contentType: "application/json" };

async function handle({ id, payload }) {
  await new Promise((resolve, reject) => {
    const body = Buffer.from(JSON.stringify(payload));
    const confirmed = (error) => (error ? reject(error) : resolve());
    channel.publish(exchange, routingKey, body, { ...options, messageId: id }, confirmed);
  });
}

const listener = { connectionString: database, max: connections };
const [stop] = initializePollingMessageListener(
  {
    outboxOrInbox: "outbox",
    dbListenerConfig: listener,
    settings: {
      dbSchema: "public",
      dbTable: table,
      nextMessagesFunctionSchema: "public",
      nextMessagesFunctionName: next,
      nextMessagesBatchSize: batch,
      nextMessagesPollingIntervalInMs: 10,
      enableMaxAttemptsProtection: false,
      enablePoisonousMessageProtection: false,
      messageCleanupIntervalInMs: 0,
    },
  },
  { handle },
  getDisabledLogger(),
  { batchSizeStrategy: async () => batch },
);
process.stdout.write("ready\n");
await lines.next();
await stop();
await admin.query(`DROP FUNCTION ${next}(integer, integer)`);
await admin.end();
await connection.close();
process.exit(0);

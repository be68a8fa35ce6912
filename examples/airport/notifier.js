// The notifier: tells passengers about cancellations and diversions, by way of a gateway that is down at times.

import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { Inbox, RetryPolicy, Subscriber } from "tidings";
import { openDatabase } from "./database.js";

process.chdir(process.env.AIRPORT_DIR);
const name = `${process.env.AIRPORT_PREFIX}notifier`;
const holdAt = Number(process.argv[2]); // stops dead once so many notices are committed: the moment for a kill -9
const report = (line) => process.stdout.write(`${line}\n`);

class GatewayDown extends Error {
  name = "GatewayDown";
}
// 100, 200, 400, 800, then every 1,600 ms.
const retry = RetryPolicy.exponential({
  maxRetries: 100,
  initial: { ms: 100 },
  max: { ms: 1600 },
  retryOn: [GatewayDown],
});

const first = !existsSync("notices.db");
const database = await openDatabase("notices.db");
if (first) {
  database.exec(Inbox.schema("sqlite"));
  database.exec("CREATE TABLE notices (event TEXT, kind TEXT, flight INTEGER, tail TEXT, again INTEGER)");
  database.exec("CREATE TABLE refusals (event TEXT, retries INTEGER, at REAL)");
}
const inbox = new Inbox();

// One connection has one transaction at a time: each waits for the one before it.
let last = Promise.resolve();
function transaction(body) {
  const mine = last.then(async () => {
    database.exec("BEGIN IMMEDIATE");
    try {
      await body();
      database.exec("COMMIT");
    } catch (error) {
      database.exec("ROLLBACK");
      throw error;
    }
  });
  last = mine.catch(() => undefined);
  return mine;
}

async function gateway(event) {
  await setTimeout(2);
  if (!existsSync("gateway-is-down")) return;
  const refused = database.prepare("INSERT INTO refusals VALUES (?, ?, ?)");
  refused.run(event.id, event.retries, performance.timeOrigin + performance.now());
  report(`count failed-attempts ${event.retries + 1}`);
  throw new GatewayDown(`the gateway is down; ${event.data.number} waits`);
}

let notified = database.prepare("SELECT count(*) AS n FROM notices WHERE again = 0").get().n;
const subscriber = new Subscriber();
subscriber.on("failed", () => {}); // the director tells of them; without a listener each is logged
const bindings = ["flight.cancelled", "flight.diverted"];
// When its process dies, an event is somebody else's after the lease; the default is 30 s.
const options = { name, exchange: "airport", concurrency: 8, retry, lease: { seconds: 2 } };
subscriber.handle(bindings, options, async (event) => {
  await gateway(event);
  // The gateway sends what is in the table. The notice, and that this event is dealt with, are one transaction.
  let isNew = false;
  await transaction(async () => {
    isNew = await inbox.claim(database, event, name, { assumeTransaction: true });
    const notice = database.prepare("INSERT INTO notices VALUES (?, ?, ?, ?, ?)");
    notice.run(event.id, event.routingKey, event.data.id, event.data.tail, isNew ? 0 : 1);
  });
  if (!isNew) return;
  notified += 1;
  report(`count notified ${notified}`);
  if (notified === holdAt) {
    report(`count notifier-holds ${notified}`);
    await new Promise(() => {});
  }
});

const running = await subscriber.start();
report(`say ${notified === 0 ? "listening for cancellations and diversions" : `back with ${notified} notices`}`);
report("ready");
process.stdin.resume().on("end", async () => {
  await running.stop();
  await subscriber.close();
  database.close();
});

// No password of a URL is in what the package says: errors, what inspects and serialises them, logs, health, metrics.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { Broker, deadLetters, Publisher, replayAll, Subscriber, TidingsError } from "../dist/index.mjs";
import { after, unique } from "./support.mjs";

const CANARY = "c4n4ryS3cret";
const SERVICES = fileURLToPath(new URL("../../tests/services", import.meta.url));
const WRONG = [
  `amqp://me:${CANARY}@127.0.0.1:1`,
  `amqp://me:${CANARY}@127.0.0.1:1/v?frobnicate=1`,
  `amqps://me:${CANARY}@127.0.0.1:1?cacertfile=/none`,
  `amqp://me:${CANARY}@127.0.0.1/a/b`,
  `amqp://127.0.0.1:1?password=${CANARY}`,
  `gopher://me:${CANARY}@127.0.0.1`,
  `amqp:me:${CANARY}@127.0.0.1`,
  `me:${CANARY}@127.0.0.1`,
  `sqlite:/none/such.db?password=${CANARY}`,
];

/** All that a program or a log can show of something. */
function described(thing) {
  const shown = [String(thing), inspect(thing, { depth: 10, showHidden: true, getters: true }), JSON.stringify(thing)];
  if (thing instanceof Error) shown.push(thing.stack, thing.message, described(thing.cause ?? null));
  return shown.join("\n");
}

/** Takes down what is shown and logged, and what goes to the terminal; at the end the password must be nowhere. */
function listening(t) {
  const shown = [];
  const say = (...things) => shown.push(...things.map(described));
  const logger = Object.fromEntries(["debug", "info", "warn", "error"].map((level) => [level, say]));
  for (const stream of [process.stdout, process.stderr]) {
    const write = stream.write;
    stream.write = (chunk, ...rest) => {
      shown.push(String(chunk));
      return write.call(stream, chunk, ...rest);
    };
    after(t, () => {
      stream.write = write;
    });
  }
  const check = () => {
    assert.ok(shown.length > 0, "nothing was looked at");
    assert.deepEqual(
      shown.filter((text) => text.includes(CANARY)),
      [],
    );
  };
  return { say, logger, check };
}

/** The error of a call that has to fail. */
async function failure(call) {
  try {
    await call();
  } catch (error) {
    assert.ok(error instanceof TidingsError, inspect(error));
    return error;
  }
  return assert.fail("it was good enough");
}

test("a broker that cannot be reached", async (t) => {
  const { say, logger, check } = listening(t);
  for (const url of WRONG) {
    const broker = new Broker(url, { logger });
    const publisher = new Publisher(url, { logger });
    const subscriber = new Subscriber(url, { logger });
    subscriber.register(() => {}, "s", "a.#");
    for (const call of [
      () => broker.connect(),
      () => publisher.publish("a.b", {}),
      () => subscriber.start(),
      () => deadLetters("s", { broker: url }),
      () => replayAll("s", { broker: url }),
    ]) {
      const error = await failure(call);
      say(error, { field: error.field, value: error.value, remedy: error.remedy });
    }
    say(broker, publisher, subscriber);
    for (const one of [publisher, broker]) await one.close();
  }
  check();
});

/** The URL of a RabbitMQ that knows us by the password that is looked for, or `undefined`. */
function guarded(t) {
  const given = process.env.AMQP_URL;
  if (!given) return t.skip("AMQP_URL is not set");
  const user = unique("canary");
  const ctl = (...words) => spawnSync(SERVICES, ["ctl", "rabbitmq3", ...words], { encoding: "utf8" });
  const added = ctl("add_user", user, CANARY);
  if (added.status === 3) return t.skip(added.stderr);
  assert.equal(added.status, 0, added.stderr);
  after(t, () => ctl("delete_user", user));
  assert.equal(ctl("set_permissions", user, ".*", ".*", ".*").status, 0);
  const url = new URL(given);
  Object.assign(url, { username: user, password: CANARY });
  return String(url);
}

test("a broker that works, and a handler that fails", async (t) => {
  const url = guarded(t);
  if (url === undefined) return;
  const { say, logger, check } = listening(t);
  const name = unique("secrets");
  const broker = new Broker(url, { logger });
  after(t, () => broker.close());
  const [publisher, subscriber] = [new Publisher(broker), new Subscriber(broker)];
  const failed = new Promise((resolve) => {
    subscriber.handle(`${name}.#`, { name }, (event) => {
      say(event, event.headers, broker.metrics());
      resolve();
      throw new Error("it does not work");
    });
  });
  const running = await subscriber.start();
  say(await publisher.publish(`${name}.a`, {}));
  await failed;
  say(running.health(), running);
  await running.stop();
  say(broker, publisher, subscriber, await broker.subscriptions(), broker.metrics(), await broker.capabilities());
  say(await deadLetters(name, { broker }), await failure(() => replayAll(unique("none"), { broker })));
  await broker.deleteSubscription(name);
  await broker.close();
  say(await failure(() => publisher.publish(`${name}.a`, {})));
  check();
});

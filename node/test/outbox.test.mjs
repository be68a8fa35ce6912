// The scenarios of tests/conformance/outbox with every driver, on the databases that are there.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Broker, DomainEvent, Inbox, MemoryInbox, Outbox, Publisher, Retry, Subscriber } from "../dist/index.mjs";
import { drivers } from "./outbox-drivers.mjs";
import { after, folder, quiet, unique, until } from "./support.mjs";

const scenarios = JSON.parse(
  readFileSync(new URL("../../tests/conformance/outbox/scenarios.json", import.meta.url), "utf8"),
);
/** One driver of each database shows what only relays do. */
const thorough = new Set(["pg", "mysql2", "better-sqlite3", "node:sqlite"]);

function events(spec) {
  const ids = spec.repeat === undefined ? [spec.id] : Array.from({ length: spec.repeat }, (_, n) => `${spec.id}.${n}`);
  return ids.map((id) => {
    const { key, tenant, headers } = spec;
    const data = spec.bytes === undefined ? (spec.data ?? {}) : "x".repeat(spec.bytes);
    const options = { id, key, tenant, headers, domainObjectId: spec.domain_object_id };
    const event = new DomainEvent(spec.routing_key ?? "test.event", data, options);
    const wait = spec.available_in_ms;
    return {
      event,
      exchange: spec.exchange,
      availableAt: wait === undefined ? undefined : new Date(Date.now() + wait),
    };
  });
}

class Stage {
  #txs = new Map();
  #seen = new Map();
  #new = [];

  async open(t, database) {
    this.database = database;
    // The relay of a SQLite file runs in another process, which reaches no broker in the memory of this one.
    this.url = database.dialect === "sqlite" ? `sqlite:${join(database.folder, "broker.db")}` : `memory:${unique("o")}`;
    this.outbox = new Outbox(database.url, { table: database.table, notify: true });
    await this.outbox.install();
    this.broker = new Broker(this.url, { logger: quiet });
    const subscriber = new Subscriber(this.broker);
    subscriber.handle("#", { name: "all", prefetch: 20_000 }, (event) => {
      this.#seen.set(event.id, event);
      this.#new.push(event.id);
    });
    await subscriber.start();
    after(t, async () => {
      await subscriber.stop();
      await this.broker.close();
      await this.outbox.close();
      await database.finish();
      await database.remove();
    });
  }

  async carryOut(step) {
    const { outbox, database } = this;
    switch (step.step) {
      case "begin":
        this.#txs.set(step.tx, await database.begin());
        break;
      case "commit":
      case "rollback":
        await this.#txs.get(step.tx).end(step.step === "commit");
        break;
      case "add": {
        const written = async () =>
          outbox.add(this.#txs.get(step.tx).connection, step.events.flatMap(events), {
            serialize: step.serialize ?? false,
          });
        if (step.error === undefined) await written();
        else if (step.error === "the database's") await assert.rejects(written(), /duplicate|unique/i);
        else await assert.rejects(written(), { code: step.error });
        break;
      }
      case "break":
        await database.setBody(step.id, "not an event");
        break;
      case "mend":
        await database.setBody(step.id, JSON.stringify(new DomainEvent("test.event", {}, { id: step.id })));
        break;
      case "relay":
        await this.#relay(step.options ?? {});
        break;
      case "retry":
      case "discard": {
        const rows = (await outbox.failed()).filter((row) => step.ids.includes(row.eventId)).map((row) => row.id);
        assert.equal(await outbox[step.step](rows), step.ids.length);
        break;
      }
      case "purge":
        await outbox.purge({ ms: step.older_than_ms });
        break;
      case "published":
        await this.#published(step);
        break;
      case "headers":
        for (const [name, value] of Object.entries(step.headers)) {
          assert.equal(this.#seen.get(step.id).headers[name], value, name);
        }
        break;
      case "data":
        assert.deepEqual(this.#seen.get(step.id).data, step.data);
        break;
      default: {
        assert.equal(step.step, "status");
        const { pending, processed, failed } = await outbox.status();
        assert.deepEqual([pending, processed, failed], [step.pending, step.processed, step.failed]);
      }
    }
  }

  async #relay(options) {
    const backoff = options.backoff_ms === undefined ? undefined : { ms: options.backoff_ms };
    const relay = await this.outbox.relay(this.url, {
      pollInterval: { ms: 50 },
      onFailed: options.on_failed,
      maxAttempts: options.max_attempts,
      maxPayload: options.max_payload,
      batch: options.batch,
      initialBackoff: backoff,
      maxBackoff: backoff,
      keep: options.keep ? { seconds: 3600 } : undefined,
    });
    await this.outbox.drain({ seconds: 60 });
    assert.equal((await relay.health()).lastError, null);
    await relay.stop();
  }

  async #published({ ids, count = ids.length }) {
    await until(() => this.#new.length >= count);
    // What is not expected would be there already.
    await new Promise((resolve) => setTimeout(resolve, 20));
    const found = this.#new.splice(0);
    if (ids !== undefined) assert.deepEqual(found, ids);
    else
      assert.deepEqual(
        found.map((id) => Number(id.split(".").at(-1))),
        [...Array(count).keys()],
      );
  }
}

/** A process that writes a hundred events, commits them or not, and is killed. */
async function killedWriter(database, commits) {
  const program = fileURLToPath(new URL("programs/writer.mjs", import.meta.url));
  const { driver } = database.constructor;
  const child = spawn(process.execPath, [program, driver, database.table, database.folder, commits], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  const [said] = await Promise.race([once(child.stdout, "data"), ended]);
  assert.equal(String(said), "written\n");
  child.kill("SIGKILL");
  await ended;
}

for (const { make, skip } of drivers) {
  const one = skip ?? (thorough.has(make.driver) || process.env.TIDINGS_LONG ? undefined : "shown with another driver");
  test(`${make.driver}: a writer that is killed before its commit has written nothing`, { skip: one }, async (t) => {
    const database = new make(folder(t));
    const outbox = new Outbox(database.url, { table: database.table });
    after(t, async () => {
      await database.finish();
      await database.remove();
      await outbox.close();
    });
    await outbox.install();
    for (const [commits, expected] of [
      ["no", 0],
      ["yes", 100],
      ["no", 100],
    ]) {
      await killedWriter(database, commits);
      assert.equal((await outbox.status()).pending, expected);
    }
  });

  test(`${make.driver}: the scenarios`, { skip }, async (t) => {
    for (const scenario of scenarios) {
      await t.test(scenario.name, async (t) => {
        const database = new make(folder(t));
        if (scenario.concurrent && database.dialect === "sqlite") return t.skip("SQLite has one writer at a time");
        if (scenario.relay && !thorough.has(make.driver)) return t.skip("shown with another driver of this database");
        const stage = new Stage();
        await stage.open(t, database);
        for (const step of scenario.steps) await stage.carryOut(step);
      });
    }
  });

  test(`${make.driver}: no open transaction is an error that explains itself`, { skip }, async (t) => {
    const database = new make(folder(t));
    const connection = await database.loose();
    after(t, () => database.finish());
    const add = async () => new Outbox().add(connection, new DomainEvent("a.b", {}));
    await assert.rejects(add(), (error) => error.code === "NO_TRANSACTION" && error.remedy.length > 0);
  });
}

test("an object of no driver is refused", () => {
  assert.throws(() => new Outbox().add({}, new DomainEvent("a.b", {})), /no connection that the outbox knows/);
});

const sqliteDriver = drivers.find(({ make }) => make.driver === "node:sqlite");

test("node:sqlite: the process of a file is killed again and again, and goes on", async (t) => {
  if (sqliteDriver.skip !== undefined) return t.skip(sqliteDriver.skip);
  if (process.platform !== "linux") return t.skip("finds its child by way of /proc");
  const database = new sqliteDriver.make(folder(t));
  const url = `sqlite:${join(database.folder, "broker.db")}`;
  const broker = new Broker(url, { logger: quiet });
  const subscriber = new Subscriber(broker);
  const first = new Map();
  subscriber.handle("#", { name: "all", prefetch: 1000 }, ({ id, key, data }) => {
    if (!first.has(id)) first.set(id, { key, data });
  });
  const outbox = new Outbox(database.url, { table: database.table });
  after(t, async () => {
    await subscriber.stop();
    await broker.close();
    await outbox.close();
    await database.finish();
  });
  await subscriber.start();
  await outbox.install();
  const relay = await outbox.relay(url, {
    pollInterval: { ms: 20 },
    batch: 7,
    // Whoever comes after a killed one waits for so long.
    lease: { seconds: 2 },
    publishTimeout: { ms: 900 },
  });
  const { connection } = await database.begin();
  connection.exec("ROLLBACK");
  let written = 0;
  for (let round = 0; round < 3; round += 1) {
    for (let rows = 0; rows < 20; rows += 1) {
      connection.exec("BEGIN IMMEDIATE");
      for (let n = 0; n < 5; n += 1, written += 1) {
        outbox.add(connection, new DomainEvent("a.b", written, { id: `e${written}`, key: `k${written % 3}` }));
      }
      connection.exec("COMMIT");
    }
    // In the middle of its work.
    await until(() => first.size > round * 100);
    const [child] = children();
    process.kill(child, "SIGKILL");
    // What is asked meanwhile is answered: with a refusal at first.
    await until(() =>
      outbox.status().then(
        () => !children().includes(child),
        (error) => assert.equal(error.code, "CONNECTION_FAILED"),
      ),
    );
  }
  await until(() => first.size === written);
  await outbox.drain();
  assert.equal((await outbox.status()).pending, 0);
  for (const wanted of ["k0", "k1", "k2"]) {
    const order = [...first.values()].filter(({ key }) => key === wanted).map(({ data }) => data);
    assert.deepEqual(
      order,
      order.toSorted((a, b) => a - b),
    );
  }
  assert.equal(connection.prepare("PRAGMA integrity_check").get().integrity_check, "ok");
  await relay.stop();
});

/** Processes that this one has started and that live. */
function children() {
  const tasks = `/proc/${process.pid}/task`;
  return readdirSync(tasks).flatMap((task) =>
    readFileSync(join(tasks, task, "children"), "utf8")
      .split(" ")
      .filter(Boolean)
      .map(Number),
  );
}

const pgDriver = drivers.find(({ make }) => make.driver === "pg");

test("an inbox runs handlers in a transaction with the claim of their event", { skip: pgDriver.skip }, async (t) => {
  const database = new pgDriver.make(folder(t));
  await database.admin(`${Inbox.schema("postgres", database.table)}; CREATE TABLE ${database.table}_bill (id text)`);
  after(t, async () => {
    await database.finish();
    await database.admin(`DROP TABLE ${database.table}, ${database.table}_bill`);
    await database.admin(`DELETE FROM tidings_schema WHERE component = 'inbox:${database.table}'`);
  });
  let away = 2;
  const open = async (body) => {
    if (away-- > 0) throw new Error("the database is away");
    const { connection, end } = await database.begin();
    try {
      await body(connection);
    } catch (error) {
      await end(false);
      throw error;
    }
    await end(true);
  };
  const inbox = new Inbox(open, { table: database.table });
  const broker = new Broker(`memory:${unique("i")}`, { logger: quiet });
  const subscriber = new Subscriber(broker);
  const tried = [];
  subscriber.handle("#", { name: "billing", maxRetries: 1, inbox }, async (event, tx) => {
    tried.push([event.idempotencyKey, event.retries]);
    await tx.query(`INSERT INTO ${database.table}_bill VALUES ($1)`, [event.idempotencyKey]);
    if (tried.length === 1) throw new Retry({ ms: 1 });
  });
  await subscriber.start();
  const publisher = new Publisher(broker);
  after(t, async () => {
    await subscriber.stop();
    await broker.close();
  });
  for (const key of ["a", "a", "end"]) await publisher.publish("order.placed", {}, { idempotencyKey: key });
  // The first run is rolled back, one of the two with the same key is a duplicate, and the outage spent no attempt.
  await until(async () => tried.length === 3 && (await broker.subscriptions())[0].ready === 0);
  await subscriber.stop();
  assert.deepEqual(new Set(tried.map(([key]) => key)), new Set(["a", "end"]));
  assert.equal(tried[0][1], 0);
  const client = await database.client();
  const { rows } = await client.query(`SELECT id FROM ${database.table}_bill ORDER BY id`);
  assert.deepEqual(
    rows.map(({ id }) => id),
    ["a", "end"],
  );
});

test("a memory inbox runs a handler once, releases what failed and gives back what is held", async (t) => {
  const inbox = new MemoryInbox({ keep: { seconds: 3600 } });
  const event = new DomainEvent("a.b", {}, { idempotencyKey: "held", tenant: "t" });
  const held = inbox.claim(event, "mails");
  assert.throws(() => inbox.claim(event, "mails"), { code: "STORE_BUSY" });
  assert.ok(held.renew());
  const broker = new Broker(`memory:${unique("m")}`, { logger: quiet });
  const subscriber = new Subscriber(broker);
  const tried = [];
  subscriber.handle("#", { name: "mails", maxRetries: 1, inbox }, async ({ idempotencyKey, retries }) => {
    tried.push([idempotencyKey, retries]);
    if (tried.length === 1) throw new Retry({ ms: 1 });
  });
  await subscriber.start();
  after(t, async () => {
    await subscriber.stop();
    await broker.close();
  });
  const publisher = new Publisher(broker);
  for (const key of ["a", "a", "b"]) await publisher.publish("order.placed", {}, { idempotencyKey: key });
  await until(async () => tried.length === 3 && (await broker.subscriptions())[0].ready === 0);
  await publisher.publish("order.placed", {}, { idempotencyKey: "held", tenant: "t" });
  const released = () => broker.metrics().some(({ name, value }) => name === "tidings_released_total" && value > 0);
  await until(released);
  assert.deepEqual(new Set(tried.map(([key]) => key)), new Set(["a", "b"]));
  held.release();
  await until(() => tried.length === 4);
  assert.deepEqual(tried[3], ["held", 0]);
  await until(() => inbox.claim(event, "mails") === undefined);
  assert.ok(inbox.claim(event, "others").complete());
});

// How events cross into the engine: in order, unchanged whatever their text, and `flush` waits for all of them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Broker, DomainEvent, Publisher, Subscriber } from "../dist/index.mjs";
import { after, collector, quiet, unique } from "./support.mjs";

function set(t) {
  const broker = new Broker(`memory:${unique("p")}`, { logger: quiet });
  after(t, () => broker.close());
  return { broker, publisher: new Publisher(broker) };
}

async function listening(t, broker) {
  const got = collector();
  const subscriber = new Subscriber(broker);
  subscriber.handle("#", { name: "all" }, (event) => got.add(event));
  const running = await subscriber.start();
  after(t, () => running.stop());
  return got;
}

test("text that looks like a line, a quotation or nothing arrives unchanged", async (t) => {
  const { broker, publisher } = set(t);
  const got = await listening(t, broker);
  const texts = ["", '"', '"quoted"', "two\nlines", "\n", "{}", "Zoë 🦊\u2028", "\\n"];
  for (const text of texts) await publisher.publish("a.b", { text }, { domainObjectId: text, headers: { text } });
  const awkward = ['"a".b', "a\nb.c", " a.b "];
  await Promise.all(awkward.map((key) => publisher.publish(key, null)));
  await got.reach(texts.length + awkward.length);
  assert.deepEqual(
    got.values.slice(0, texts.length).map((event) => [event.data.text, event.domainObjectId, event.headers.text]),
    texts.map((text) => [text, text, text]),
  );
  assert.deepEqual(
    got.values.slice(texts.length).map((event) => event.routingKey),
    awkward,
  );
});

test("foreign JSON with line breaks between its tokens can be published again", async (t) => {
  const { broker, publisher } = set(t);
  const got = await listening(t, broker);
  class Foreign extends DomainEvent {
    parts() {
      return { ...super.parts(), json: '{\n  "text": "a\\nb"\n}' };
    }
  }
  await publisher.publish(new Foreign("a.b", null));
  const [event] = await got.reach(1);
  assert.deepEqual(event.data, { text: "a\nb" });
});

test("numbers that JSON does not have are refused, not left out", async (t) => {
  const { publisher } = set(t);
  const refused = { code: "INVALID_OPTION" };
  await assert.rejects(publisher.publish("a.b", 1, { timeoutMs: Number.NaN }), refused);
  await assert.rejects(publisher.publish("a.b", 1, { deliverAt: new Date("nonsense") }), refused);
  await assert.rejects(publisher.publish("a.b", 1, { timestamp: new Date("nonsense") }), refused);
});

test("the order of the calls is the order of the events, also before the connection and with options between", async (t) => {
  const { broker, publisher } = set(t);
  const got = await listening(t, broker);
  const publishes = [];
  // More than may be in flight at once.
  for (let n = 0; n < 12_000; n += 1) {
    publishes.push(publisher.publish("a.b", n, n % 500 === 0 ? { requireRoute: true } : {}));
  }
  await Promise.all(publishes);
  await got.reach(12_000);
  assert.deepEqual(
    got.values.map((event) => event.data),
    Array.from({ length: 12_000 }, (_, n) => n),
  );
});

test("a batch gives each event its result, in order", async (t) => {
  const { publisher } = set(t);
  assert.deepEqual(await publisher.publishBatch([]), []);
  const events = Array.from(
    { length: 300 },
    (_, n) => new DomainEvent(n % 3 === 2 ? "a.*" : "a.b", n, { id: `id-${n}` }),
  );
  const results = await publisher.publishBatch([...events, "no event"]);
  for (const [n, result] of results.slice(0, 300).entries()) {
    if (n % 3 === 2) assert.equal(result.reason.code, "INVALID_ROUTING_KEY");
    else assert.deepEqual(result, { status: "fulfilled", value: { id: `id-${n}`, routed: false } });
  }
  assert.match(results[300].reason.message, /needs DomainEvents, not string/);
});

test("flush waits for everything that was published before it", async (t) => {
  const { publisher } = set(t);
  await publisher.flush();
  let confirmed = 0;
  const count = () => {
    confirmed += 1;
  };
  for (let round = 1; round <= 3; round += 1) {
    for (let n = 0; n < 10_000; n += 1) void publisher.publish("a.b", n).then(count);
    const flushed = publisher.flush();
    void publisher.publish("a.b", "later");
    await flushed;
    assert.ok(confirmed >= round * 10_000, String(confirmed));
  }
  await publisher.close();
  await assert.rejects(publisher.publish("a.b", 1), { code: "CLOSED" });
});

test("what cannot reach the broker fails, and the next publish tries again", async () => {
  const publisher = new Publisher("sqlite:/nowhere/at/all/events.db", { logger: false });
  const both = await Promise.allSettled([publisher.publish("a.b", 1), publisher.publish("a.b", 2)]);
  const again = await Promise.allSettled([publisher.publish("a.b", 3)]);
  const codes = [...both, ...again].map((result) => result.reason?.code);
  assert.equal(new Set(codes).size, 1);
  assert.ok(codes[0] !== undefined);
  await publisher.close();
});

// Values and errors: what is refused, and how it is said.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as tidings from "../dist/index.mjs";
import { after, quiet } from "./support.mjs";

const { Broker, DomainEvent, Publisher, Retry, RetryPolicy, Subscriber, TidingsError } = tidings;
const vector = (name) => JSON.parse(readFileSync(new URL(`../../tests/vectors/${name}.json`, import.meta.url), "utf8"));

test("a bare number is no delay", () => {
  assert.throws(() => new Retry(5), {
    name: "TypeError",
    message: /Retry needs its unit: \{ seconds: 5 \}.*bare number 5/,
  });
  assert.throws(() => new Retry({ seconds: 1, ms: 1 }), TypeError);
  assert.throws(() => new Retry({ seconds: -1 }), TypeError);
  assert.equal(new Retry({ seconds: 1.5 }).afterMs, 1500);
  assert.equal(new Retry({ ms: 20 }).afterMs, 20);
  assert.equal(new Retry().afterMs, undefined);
  assert.throws(() => RetryPolicy.fixed({ maxRetries: 1, delay: 5 }), TypeError);
  assert.throws(() => RetryPolicy.exponential({ maxRetries: 1, initial: { ms: 5 } }), /max needs its unit/);
  assert.throws(() => RetryPolicy.fixed({ maxRetries: 0.5, delay: { ms: 5 } }), TypeError);
});

test("every code of the table has a class", () => {
  const exported = new Map(Object.entries(tidings));
  for (const { code, retryable } of vector("errors")) {
    const name = `${code
      .split("_")
      .map((word) => word[0] + word.slice(1).toLowerCase())
      .join("")}Error`;
    assert.ok(exported.get(name)?.prototype instanceof TidingsError, name);
    assert.equal(typeof retryable, "boolean");
  }
});

test("errors name field, value and remedy, and hide secrets", async (t) => {
  const refused = async (url, code) => {
    const broker = new Broker(url, { logger: quiet });
    after(t, () => broker.close());
    const error = await broker.connect().then(
      () => assert.fail(`${url} was reached`),
      (one) => one,
    );
    assert.ok(error instanceof TidingsError, String(error));
    assert.equal(error.code, code);
    assert.ok(!`${error.stack}${JSON.stringify(error)}`.includes("s3cret"));
    return error;
  };
  const unknown = await refused("carrier-pigeon://me:s3cret@loft", "UNSUPPORTED_TRANSPORT");
  assert.deepEqual([unknown.field, unknown.value], ["url", "carrier-pigeon://me:***@loft"]);
  assert.match(unknown.remedy, /sqlite:/);
  assert.equal(unknown.name, "UnsupportedTransportError");
  await refused("amqp://me:s3cret@127.0.0.1:1", "CONNECTION_FAILED");
  assert.throws(() => new Broker(7), TypeError);
});

test("options are checked where they are given", () => {
  const subscriber = new Subscriber("memory:", { logger: quiet });
  const handler = () => {};
  const refused = (name, keys, options, code) =>
    assert.throws(() => subscriber.register(handler, name, keys, options), { code });
  refused("bad name", "a", {}, "INVALID_NAME");
  refused("a-dl", "a", {}, "INVALID_NAME");
  refused("a", "a.b*", {}, "INVALID_BINDING_KEY");
  refused("a", "a", { concurrency: 0 }, "INVALID_OPTION");
  refused("a", "a", { maxRetries: 1.5 }, "INVALID_OPTION");
  refused("a", "a", { queueType: "stream" }, "INVALID_OPTION");
  refused("a", "a", { lease: { ms: 1 } }, "INVALID_OPTION");
  assert.throws(() => subscriber.register(handler, "a", "a", { timeoutMs: 5 }), /did you mean timeout/);
  assert.throws(() => subscriber.register(handler, "a", "a", { timeout: 5 }), TypeError);
  assert.throws(() => subscriber.register(handler, "a", "a", { retry: {} }), TypeError);
  assert.throws(() => subscriber.register("x", "a", "a"), TypeError);
  assert.throws(() => subscriber.on("order.placed", handler), /no life-cycle event/);
  subscriber.register(handler, "a", "a.*");
  refused("a", "b", {}, "SUBSCRIPTION_CONFLICT");
});

test("data without a JSON form is refused", async () => {
  for (const data of [undefined, () => {}, 1n, { a: Number.NaN }, [Number.POSITIVE_INFINITY]]) {
    assert.throws(() => new DomainEvent("a.b", data), TypeError);
  }
  const cycle = {};
  cycle.self = cycle;
  const publisher = new Publisher("memory:", { logger: quiet });
  await assert.rejects(publisher.publish("a.b", cycle), TypeError);
  await assert.rejects(publisher.publish(7, {}), /needs a routing key/);
  await assert.rejects(publisher.publish("a.b", {}, { headers: { big: "x".repeat(70_000) } }), {
    code: "HEADERS_TOO_LARGE",
  });
  await assert.rejects(publisher.publish("a.b", "x".repeat(2_000_000)), { code: "PAYLOAD_TOO_LARGE" });
  await assert.rejects(publisher.publish("a.b", {}, { headers: { raw: new Uint8Array(2) } }), {
    code: "INVALID_HEADER",
  });
  await assert.rejects(publisher.publish("a.b", {}, { requireRoute: true }), { code: "UNROUTABLE" });
  await publisher.close();
  await assert.rejects(publisher.publish("a.b", {}), { code: "CLOSED" });
});

test("an event is what it says", () => {
  const cause = new DomainEvent("a.b", null, { headers: { traceparent: "00-x", baggage: "b" }, tenant: "t" });
  const event = new DomainEvent("a.c", { big: 1 }, { causedBy: cause, domainObjectId: "7" });
  assert.equal(event.causationId, cause.id);
  assert.equal(event.correlationId, cause.id);
  assert.deepEqual([event.tenant, event.key, event.headers.traceparent], ["t", "7", "00-x"]);
  assert.equal(event.id, event.id);
  assert.match(event.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
  const { routing_key, data, domain_object_id, uuid_string, timestamp } = JSON.parse(JSON.stringify(event));
  assert.deepEqual([routing_key, data, domain_object_id, uuid_string], ["a.c", { big: 1 }, "7", event.id]);
  assert.ok(Math.abs(timestamp - Date.now() / 1000) < 60);
});

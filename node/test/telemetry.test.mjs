// Traces with the real @opentelemetry/api and SDK: what is published carries the trace, handlers continue it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { context, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { Broker, DomainEvent, Publisher, Subscriber } from "../dist/index.mjs";
import { after, collector, quiet, unique, until } from "./support.mjs";

const exporter = new InMemorySpanExporter();
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
const tracer = trace.getTracer("test");

function setting(t) {
  const broker = new Broker(`memory:${unique("o")}`, { logger: quiet });
  const subscriber = new Subscriber(broker);
  after(t, () => broker.close());
  after(t, () => subscriber.stop());
  return { publisher: new Publisher(broker), subscriber };
}

/** Runs in a span of its own and ends it. */
function inSpan(name, run) {
  return tracer.startActiveSpan(name, async (span) => {
    try {
      return { result: await run(), ...span.spanContext() };
    } finally {
      span.end();
    }
  });
}

const ended = (name) => exporter.getFinishedSpans().filter((span) => span.name === name);

test("a handler's span is the child of the span that published, over two hops", async (t) => {
  const { publisher, subscriber } = setting(t);
  const got = collector();
  subscriber.handle("order.placed", { name: "first" }, async (event) => {
    got.add([event.headers.traceparent, trace.getActiveSpan()?.spanContext().traceId]);
    await publisher.publish("order.billed", 1, { causedBy: event });
  });
  subscriber.handle("order.billed", { name: "second" }, (event) => got.add([event.headers.traceparent]));
  await subscriber.start();
  const { traceId, spanId } = await inSpan("request", () => publisher.publish("order.placed", 1));
  const [[first, active], [second]] = await got.reach(2);
  assert.equal(first, `00-${traceId}-${spanId}-01`);
  assert.equal(active, traceId);
  await until(() => ended("process first").length === 1 && ended("process second").length === 1);
  const [one] = ended("process first");
  const [two] = ended("process second");
  assert.deepEqual([one.kind, one.parentSpanContext.spanId], [SpanKind.CONSUMER, spanId]);
  assert.equal(one.attributes["messaging.destination.name"], "first");
  assert.deepEqual([two.spanContext().traceId, second.split("-")[1]], [traceId, traceId]);
  // What the event brought wins over the span that handles it: causedBy says whose child it is.
  assert.equal(two.parentSpanContext.spanId, second.split("-")[2]);
});

test("a batch and a made event carry the trace, and a trace of their own stays", async (t) => {
  const { publisher, subscriber } = setting(t);
  const got = collector();
  subscriber.handle("#", { name: "all" }, (event) => got.add([event.data, event.headers.traceparent]));
  await subscriber.start();
  const own = `00-${"1".repeat(32)}-${"2".repeat(16)}-01`;
  const { traceId, spanId } = await inSpan("batch", () =>
    publisher.publishBatch([new DomainEvent("a.b", 1), new DomainEvent("a.b", 2, { headers: { traceparent: own } })]),
  );
  await publisher.publish("a.b", 3);
  assert.deepEqual(await got.reach(3), [
    [1, `00-${traceId}-${spanId}-01`],
    [2, own],
    [3, undefined],
  ]);
});

test("a handler that throws marks its span; a subscriber's own span is nobody's parent", async (t) => {
  const { publisher, subscriber } = setting(t);
  subscriber.on("failed", () => {});
  subscriber.handle("a.b", { name: "broken" }, () => {
    throw new Error("no such address");
  });
  const { traceId } = await inSpan("start", () => subscriber.start());
  await publisher.publish("a.b", 1);
  await until(() => ended("process broken").length === 1);
  const [span] = ended("process broken");
  assert.equal(span.status.code, SpanStatusCode.ERROR);
  assert.equal(span.events[0].attributes["exception.message"], "no such address");
  assert.equal(span.parentSpanContext, undefined);
  assert.notEqual(span.spanContext().traceId, traceId);
});

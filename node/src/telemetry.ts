// Trace context through @opentelemetry/api, where the program has it and has set it up.

import type { DomainEvent } from "./event";

type Api = typeof import("@opentelemetry/api");

/** Where the API keeps what an SDK has registered. Absent: nobody traces, and nothing has to be loaded. */
const REGISTERED = Symbol.for("opentelemetry.js.api.1");

let api: Api | null | undefined;

function tracing(): Api | null {
  if ((globalThis as Record<symbol, unknown>)[REGISTERED] === undefined) return null;
  if (api === undefined) {
    try {
      api = require("@opentelemetry/api") as Api;
    } catch {
      // It is there for somebody else's tree of packages only: headers pass through unchanged.
      api = null;
    }
  }
  return api;
}

/** The headers with the current trace context, unless they have one; a copy where something is added. */
export function carry(headers: Record<string, unknown> | null): Record<string, unknown> | null {
  const otel = tracing();
  if (otel === null || headers?.traceparent !== undefined) return headers;
  const carrier: Record<string, unknown> = {};
  otel.propagation.inject(otel.context.active(), carrier);
  return Object.keys(carrier).length > 0 ? { ...carrier, ...headers } : headers;
}

/** Runs a handler in a span that continues the event's trace. */
export function traced<R>(subscription: string, event: DomainEvent, handle: () => Promise<R>): Promise<R> {
  const otel = tracing();
  if (otel === null) return handle();
  const parent = otel.propagation.extract(otel.ROOT_CONTEXT, event.headers);
  const attributes = {
    "messaging.system": "tidings",
    "messaging.operation.type": "process",
    "messaging.destination.name": subscription,
    "messaging.message.id": event.id,
    "tidings.routing_key": event.routingKey,
    "tidings.retries": event.retries,
  };
  const span = otel.trace
    .getTracer("tidings")
    .startSpan(`process ${subscription}`, { kind: otel.SpanKind.CONSUMER, attributes }, parent);
  return otel.context.with(otel.trace.setSpan(parent, span), async () => {
    try {
      return await handle();
    } catch (error) {
      span.recordException(error instanceof Error ? error : String(error));
      span.setStatus({ code: otel.SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Whether handlers have to be traced. */
export function isTracing(): boolean {
  return tracing() !== null;
}

// Publishes generated events, many in flight, and says which ones the broker has confirmed.

import { setTimeout as sleep } from "node:timers/promises";
import { DomainEvent } from "../../../node/dist/index.mjs";
import { say } from "./output.mjs";

/** Most ids in one `confirmed` line. */
const REPORT = 1000;

/** Publishes what `work` asks for: how much was confirmed, how much failed. */
export async function publish(publisher, work) {
  const { count, first = 0, rate, delay_ms: delayMs } = work;
  const size = Math.max(work.batch ?? 1, 1);
  const most = Math.max(work.in_flight ?? 1000, size);
  const began = performance.now();
  const report = new Report();
  const waiting = new Set();
  for (let sent = 0; sent < count; ) {
    const early = rate === undefined ? 0 : began + (sent / rate) * 1000 - performance.now();
    if (early > 0) await sleep(early);
    while ((waiting.size + 1) * size > most) await Promise.race(waiting);
    const numbers = Array.from({ length: Math.min(size, count - sent) }, (_, at) => first + sent + at);
    sent += numbers.length;
    const sending = send(
      publisher,
      numbers.map((seq) => event(work, seq)),
      delayMs,
      report,
    ).then(() => {
      waiting.delete(sending);
    });
    waiting.add(sending);
  }
  await Promise.all(waiting);
  report.flush();
  return { confirmed: report.confirmed, failed: report.failed, seconds: (performance.now() - began) / 1000 };
}

async function send(publisher, events, delayMs, report) {
  const options = delayMs === undefined ? {} : { delay: { ms: delayMs } };
  const results =
    events.length > 1
      ? await publisher.publishBatch(events, options)
      : await Promise.allSettled([publisher.publish(events[0], options)]);
  for (const [at, { status, reason }] of results.entries()) {
    if (status === "fulfilled") report.add(events[at].id);
    else report.fail(events[at].id, reason);
  }
}

/** What the rig is told, many ids a line: those of one turn of the event loop. */
class Report {
  confirmed = 0;
  failed = 0;
  #ids = [];

  add(id) {
    if (this.#ids.length === 0) setImmediate(() => this.flush());
    this.confirmed += 1;
    if (this.#ids.push(id) === REPORT) this.flush();
  }

  fail(id, error) {
    if (error.code === undefined) throw error;
    this.failed += 1;
    say("failed", { id, code: error.code, outcome_unknown: error.outcomeUnknown, message: error.message });
  }

  flush() {
    if (this.#ids.length > 0) say("confirmed", { ids: this.#ids });
    this.#ids = [];
  }
}

function event({ routing_key: key = "rig.event", prefix, keys = 0, skewed, bytes = 0 }, seq) {
  // What the five keys and the other fields take, near enough.
  const around = 150 + key.length + 2 * prefix.length;
  const data = { seq, prefix, pad: "x".repeat(Math.max(0, bytes - around)) };
  // A law like Zipf's: a tenth of the keys has most of the events.
  const which = skewed ? Math.floor(keys ** (((seq * 2654435761) % 2 ** 32) / 2 ** 32)) - 1 : seq % keys;
  return new DomainEvent(key, data, { id: `${prefix}${seq}`, domainObjectId: keys > 0 ? `k${which}` : undefined });
}

// The handlers that a rig can ask for. Each says what it did before it returns, so before the event is acknowledged.

import { setTimeout as sleep } from "node:timers/promises";
import { DeadLetter, Retry } from "../../../node/dist/index.mjs";
import { say } from "./output.mjs";

/** A handler of this kind; `count` is called for each event. */
export function handler(name, kind, report, count) {
  let begun = 0;
  return async (event) => {
    const seq = event.data?.seq;
    const about = { name, id: event.id, key: event.key, seq, attempt: event.retries };
    if (kind.kind === "sleep") await sleep(kind.ms);
    if (kind.kind === "exit" && seq === kind.seq) process.kill(process.pid, "SIGKILL");
    if (kind.kind === "unsteady") {
      say("begin", { ...about, at_us: Date.now() * 1000 });
      await sleep(1 + (seq % 5));
    }
    if (kind.kind === "troubled") {
      begun += 1;
      if (begun === kind.exit_after) process.kill(process.pid, "SIGKILL");
      if (event.retries === 0 && seq % kind.hang_every === 0) await new Promise(() => {});
      if (seq % kind.slow_every === 0) await sleep(kind.slow_ms);
    }
    const [outcome, error] = decide(kind, event);
    count();
    if (report !== "none") {
      const now = Date.now();
      const late = Math.max(0, (now - event.timestamp.getTime()) * 1000);
      const more = report === "events" ? { event, headers: event.headers } : {};
      say("effect", { ...about, outcome, at_us: now * 1000, late_us: late, ...more });
    }
    if (error !== undefined) throw error;
  };
}

function decide(kind, event) {
  const seq = event.data?.seq;
  const attempt = event.retries;
  switch (kind.kind) {
    case "retry_first": {
      const chosen = Number.isInteger(seq) && seq % Math.max(kind.every ?? 1, 1) === 0;
      return chosen && attempt < (kind.times ?? 1) ? ["retry", retry(kind.delays_ms, attempt)] : ["ok"];
    }
    case "retry_always":
      return ["retry", retry(kind.delays_ms, attempt)];
    case "fail":
      return ["fail", new Error(kind.message)];
    case "dead":
      return ["dead", new DeadLetter(kind.reason)];
    case "unsteady":
      return unsteady(kind, event);
    default:
      return ["ok"];
  }
}

/** A twentieth of the events each, chosen by `seq`, as the client in Rust chooses them. */
function unsteady({ short_ms, long_ms, mended_after_ms }, { data, retries, timestamp }) {
  const [kind, times] = mood(data.seq);
  if (kind === "short" && retries < times) return ["retry", retry([short_ms], 0)];
  if (kind === "long" && retries < times) return ["retry", retry([long_ms], 0)];
  if (kind === "dead" && Date.now() - timestamp.getTime() < mended_after_ms)
    return ["dead", new DeadLetter("too-young")];
  return ["ok"];
}

/** The same for an event in every process: the bits are mixed, so that neighbours have nothing in common. */
function mood(seq) {
  const wrap = (number) => BigInt.asUintN(64, number);
  let mixed = wrap((BigInt(seq) ^ (BigInt(seq) >> 30n)) * 0xbf58476d1ce4e5b9n);
  mixed = wrap((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
  const times = Number(mixed >> 60n);
  const share = Number((mixed >> 20n) % 1000n);
  if (share < 40) return ["short", 1 + (times % 3)];
  if (share < 50) return ["long", 1 + (times % 2)];
  return share < 54 ? ["dead"] : ["good"];
}

function retry(delays, attempt) {
  return new Retry({ ms: delays?.[Math.min(attempt, delays.length - 1)] ?? 0 });
}

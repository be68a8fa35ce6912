// What the tests share: brokers to run on, and waiting for something to be so.

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Broker } from "../dist/index.mjs";

/** Name that no other test has. */
export const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

/** The transports of this machine: memory and SQLite always, each RabbitMQ that the environment names. */
export const transports = [
  { name: "memory", url: () => `memory:${unique("t")}` },
  { name: "sqlite", url: (t) => `sqlite:${join(folder(t), "events.db")}` },
  ...["AMQP_URL", "AMQP4_URL"]
    .filter((variable) => process.env[variable])
    .map((variable) => ({ name: variable.toLowerCase(), url: () => process.env[variable] })),
];

/** What a test leaves behind is undone last first. */
const leftovers = new WeakMap();

/** Undoes `undo` at the end of the test. */
export function after(t, undo) {
  if (!leftovers.has(t)) {
    const undoing = [];
    leftovers.set(t, undoing);
    t.after(async () => {
      for (const one of undoing.toReversed()) await one();
    });
  }
  leftovers.get(t).push(undo);
}

/** A folder that goes with the test. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "tidings-"));
  after(t, () => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A broker that goes with the test, and the subscriptions whose names `name` gave. */
export function broker(t, transport) {
  const made = new Broker(transport.url(t), { logger: quiet });
  const names = [];
  after(t, async () => {
    for (const name of names) await deleted(made, name);
    await made.close();
  });
  const name = (word) => {
    names.push(unique(word));
    return names.at(-1);
  };
  return { broker: made, name, exchange: unique("node") };
}

/** A server that many use at once refuses a deletion now and then; that is not what is tested. */
async function deleted(from, name, tries = 5) {
  try {
    await from.deleteSubscription(name);
  } catch (error) {
    if (tries === 0 || error.code !== "CONNECTION_FAILED") throw error;
    await deleted(from, name, tries - 1);
  }
}

/** A logger that says nothing and keeps everything. */
export const quiet = {
  lines: [],
  warn(line) {
    this.lines.push(line);
  },
  error(line) {
    this.lines.push(line);
  },
};

/** A promise with its handles, and how often it was called. */
export function signal() {
  let resolve;
  const promise = new Promise((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** Collects values; `reach(n)` resolves with them once there are n. */
export function collector() {
  const values = [];
  const waiting = [];
  return {
    values,
    add(value) {
      values.push(value);
      for (const one of waiting) if (values.length >= one.count) one.resolve(values);
    },
    reach(count) {
      if (values.length >= count) return Promise.resolve(values);
      return new Promise((resolve) => waiting.push({ count, resolve }));
    },
  };
}

/** Looks again at every turn of the event loop until it is so; the test's time-out is the limit. */
export async function until(condition) {
  for (;;) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Runs a program to its end: what it printed, and how it ended. */
export function run(args, options = {}) {
  const child = start(args, options);
  return child.ended;
}

/** Starts a Node program; `line(text)` waits for a line with that text, `ended` for its end. */
export function start(args, options = {}) {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const { node = process.execPath, ...rest } = options;
  const child = spawn(node, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], ...rest });
  let out = "";
  let err = "";
  const waiting = new Set();
  const look = () => {
    for (const one of waiting) if (out.includes(one.text)) one.resolve(out);
  };
  child.stdout.setEncoding("utf8").on("data", (text) => {
    out += text;
    look();
  });
  child.stderr.setEncoding("utf8").on("data", (text) => {
    err += text;
  });
  const ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, by) => {
      resolve({ code, signal: by, out, err });
      for (const one of waiting) one.reject(new Error(`it ended before it said ${one.text}: ${out}${err}`));
    });
  });
  const line = (text) =>
    new Promise((resolve, reject) => {
      waiting.add({ text, resolve, reject });
      look();
    });
  return { child, line, ended, text: () => out };
}

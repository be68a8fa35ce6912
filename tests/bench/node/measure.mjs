// One measurement of one contender: `measure.mjs <contender> <settings as JSON>`. Says `ready`, waits for a line, works, and
// prints what it found: seconds, CPU seconds of the process and of the thread that runs JavaScript, delay of the event loop.

import { readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { payload, ROUTING_KEY } from "./event.mjs";

const [name, json] = process.argv.slice(2);
const settings = JSON.parse(json);
const contender = await import(`./${name}.mjs`);

/** CPU seconds of the thread that runs JavaScript. */
function threadSeconds() {
  if (process.threadCpuUsage !== undefined) {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1e6;
  }
  const stat = readFileSync(`/proc/self/task/${process.pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Everything from here to the call of what it returns. */
function watch() {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const [began, cpu, thread] = [performance.now(), process.cpuUsage(), threadSeconds()];
  delay.enable();
  return () => {
    const seconds = (performance.now() - began) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    delay.disable();
    const p99 = delay.percentile(99) / 1e6;
    return { seconds, cpu: (user + system) / 1e6, thread: threadSeconds() - thread, delay_p99_ms: p99 };
  };
}

/** A line of stdin, once the rig is ready too. */
async function go() {
  process.stdout.write("ready\n");
  await new Promise((heard) => process.stdin.once("data", heard));
  process.stdin.unref();
}

/** `count` events, `window` of them unconfirmed at any time. */
function sliding({ send }, first, count, window) {
  return new Promise((resolve, reject) => {
    let sent = 0;
    let done = 0;
    const confirmed = () => {
      done += 1;
      if (sent < count) one();
      else if (done === count) resolve();
    };
    const one = () => {
      const n = first + sent;
      sent += 1;
      send(ROUTING_KEY, payload(n), String(n)).then(confirmed, reject);
    };
    while (sent < Math.min(window, count)) one();
  });
}

/** The same in batches, so many at once that `window` events are unconfirmed. */
async function batches({ sendBatch }, first, count, window, size) {
  let next = first;
  const lane = async () => {
    while (next < first + count) {
      const from = next;
      next += size;
      const numbers = Array.from({ length: Math.min(size, first + count - from) }, (_, at) => from + at);
      await sendBatch(numbers.map((n) => ({ routingKey: ROUTING_KEY, data: payload(n), key: String(n) })));
    }
  };
  await Promise.all(Array.from({ length: window / size }, lane));
}

async function publish({ count, window, batch, warm }) {
  const publisher = await contender.publisher(settings);
  const work = (first, many) =>
    publisher.send === undefined
      ? batches(publisher, first, many, window, batch)
      : sliding(publisher, first, many, window);
  await work(0, warm);
  await go();
  const stop = watch();
  await work(warm, count);
  const found = stop();
  await publisher.close();
  return found;
}

async function consume({ count }) {
  const consumer = await contender.consumer(settings);
  await go();
  let seen = 0;
  let sum = 0;
  let stop;
  let finish;
  const last = new Promise((resolve) => {
    finish = resolve;
  });
  await consumer.start((data) => {
    sum += data.user_id;
    seen += 1;
    // What came before the first event is not the work.
    if (seen === 1) stop = watch();
    else if (seen === count) finish(stop());
  });
  const found = await last;
  // The last handlers return, and their acks leave.
  await new Promise(setImmediate);
  await consumer.close();
  return { ...found, sum };
}

const found = await (settings.work === "publish" ? publish(settings) : consume(settings));
process.stdout.write(`${JSON.stringify(found)}\n`);

// The client process for the rigs, in Node (see tests/clients/PROTOCOL.md).

import { createInterface } from "node:readline";
import {
  Broker,
  DomainEvent,
  deadLetters,
  Publisher,
  RetryPolicy,
  replayAll,
  Subscriber,
} from "../../../node/dist/index.mjs";
import { handler } from "./handler.mjs";
import { say } from "./output.mjs";
import { publish } from "./publish.mjs";

/** What the process holds between two commands. */
class Client {
  #broker;
  #publisher;
  #subscribers = [];
  #handled = 0;

  async connect({ url }) {
    this.#broker = new Broker(url);
    this.#publisher = new Publisher(this.#broker);
    return { transport: (await this.#broker.capabilities()).name };
  }

  publish(work) {
    return publish(this.#publisher, work);
  }

  async publish_event({ event, headers, delay_ms: delayMs }) {
    const { routing_key, data, domain_object_id: domainObjectId, uuid_string: id, timestamp } = event;
    const made = new DomainEvent(routing_key, data, {
      id,
      domainObjectId: domainObjectId ?? undefined,
      timestamp: timestamp === undefined ? undefined : new Date(timestamp * 1000),
      headers,
    });
    return await this.#publisher.publish(made, delayMs === undefined ? {} : { delay: { ms: delayMs } });
  }

  async subscribe(what) {
    const { name, bindings, concurrency, prefetch, ordered, compat, report = "effects" } = what;
    const subscriber = new Subscriber(this.#broker);
    const options = {
      concurrency,
      prefetch,
      ordered,
      compat,
      maxRetries: what.max_retries ?? 0,
      deadLetter: what.dead_letter,
      queueType: what.classic ? "classic" : "quorum",
      lease: what.lease_ms === undefined ? undefined : { ms: what.lease_ms },
    };
    if (what.timeout_ms !== undefined) {
      // A handler that was given up on is tried again soon.
      const retry = RetryPolicy.fixed({ maxRetries: options.maxRetries, delay: { ms: 100 } });
      Object.assign(options, { maxRetries: undefined, timeout: { ms: what.timeout_ms }, retry });
    }
    const count = () => {
      this.#handled += 1;
    };
    subscriber.register(handler(name, what.handler ?? { kind: "ok" }, report, count), name, bindings, options);
    this.#subscribers.push(await subscriber.start());
    return {};
  }

  async health() {
    const every = this.#subscribers.flatMap((running) => running.health());
    return {
      subscriptions: every.map((one) => ({
        name: one.subscription,
        connected: one.connected,
        consuming: one.consuming,
        in_flight: one.inFlight,
        buffered: one.buffered,
        recoveries: one.recoveries,
        last_error: one.lastError,
      })),
    };
  }

  async stats() {
    const { user, system } = process.cpuUsage();
    const published = this.#broker?.metrics().find(({ name }) => name === "tidings_published_total");
    return {
      published: published?.value ?? 0,
      handled: this.#handled,
      cpu_seconds: (user + system) / 1e6,
      rss_bytes: process.memoryUsage.rss(),
      pid: process.pid,
    };
  }

  async depths({ names = [] }) {
    const every = await this.#broker.subscriptions();
    const meant = every.filter(({ name }) => names.length === 0 || names.includes(name));
    return { subscriptions: meant.map(({ inFlight, ...one }) => ({ ...one, in_flight: inFlight })) };
  }

  async dead_letters({ name, limit = 100 }) {
    const found = await deadLetters(name, { broker: this.#broker, limit });
    const line = ({ id, routingKey, reason, attempts, body }) => ({
      id,
      routing_key: routingKey,
      reason,
      attempts,
      body,
    });
    return { dead: found.map(line) };
  }

  async replay({ name, action = "retry" }) {
    const { seen, replayed, discarded, remaining } = await replayAll(name, {
      broker: this.#broker,
      decide: () => action,
    });
    return { seen, replayed, discarded, remaining };
  }

  async delete({ name }) {
    return { existed: await this.#broker.deleteSubscription(name) };
  }

  async stop() {
    let unfinished = 0;
    for (const running of this.#subscribers.splice(0)) unfinished += await running.stop();
    return { unfinished };
  }

  async end() {
    await this.stop();
    await this.#broker?.close();
  }
}

const client = new Client();

/** Carries out a command and answers it. */
async function answer({ do: command, n = 0, ...asked }) {
  // What is left out may be written as null.
  const fields = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== null));
  try {
    if (!COMMANDS.has(command))
      throw Object.assign(new Error(`there is no command ${command}`), { code: "INVALID_OPTION" });
    say(command, { n, ...(await client[command](fields)) });
  } catch (error) {
    if (error.code === undefined) throw error;
    say(command, { n, error: { code: error.code, message: error.message } });
  }
}

const COMMANDS = new Set(
  "connect publish publish_event subscribe health stats depths dead_letters replay delete stop".split(" "),
);

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const answered = answer(request);
  // Publishing goes on while other commands are carried out.
  if (request.do !== "publish") await answered;
}
await client.end();
process.exit(0);

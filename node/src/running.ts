import { type Abortable, abortable } from "./abort";
import { bridge } from "./bridge";
import type { Broker, Metric } from "./broker";
import type { Consumer, Listener } from "./consumer";
import { type Delay, toMs } from "./delay";
import { failure } from "./error";
import type { Life } from "./life";

/** What a subscription is doing right now. */
export interface SubscriptionHealth {
  subscription: string;
  /** The broker can be reached. */
  connected: boolean;
  /** The broker knows a live consumer of this process: new events will arrive. */
  consuming: boolean;
  paused: boolean;
  /** Stopping: handlers finish, nothing new starts. */
  draining: boolean;
  /** Events that handlers have in hand. */
  inFlight: number;
  /** Events fetched and waiting for a handler. */
  buffered: number;
  /** How often the consumer had to be set up again. */
  recoveries: number;
  /** What ended the connection or consumer last. */
  lastError: string | null;
  /** What holds it back, if something does: `prefetch`, `suspect`, `max_parked`. */
  limitedBy: string | null;
  /**
   * Ordered subscriptions: who runs it, and what waits. On RabbitMQ of what this process owns; on a file of the whole
   * subscription, as it was when it was last asked for.
   */
  order: SubscriptionOrder | null;
}

/** Who runs an ordered subscription, and which keys wait in it. */
export interface SubscriptionOrder {
  /** RabbitMQ: this process (host, process, connection), if it is the one that runs it. A file: leases with keys in hand. */
  owners: string[];
  /** Keys whose first event waits for its retry. */
  waitingKeys: number;
  /** Keys that are parked: behind a dead event or, on RabbitMQ, for a long retry. */
  parkedKeys: number;
  /** Of those, the ones behind a dead event. */
  deadKeys: number;
  /** How long the first event has waited that has done so longest. */
  oldestWaitingSeconds: number | null;
}

/** A started subscriber. It keeps the process alive until it is stopped. */
export class Running {
  /** @internal */
  readonly listener: Listener;
  readonly #broker: Broker;
  readonly #life: Life;
  readonly #drainMs: number;
  #consumers: readonly Consumer[] = [];
  #stopping: Promise<number> | undefined;
  #holding = false;
  #ended: { resolve(): void; reject(error: unknown): void } = { resolve() {}, reject() {} };
  #unlisten = () => {};

  /** Resolves once it has stopped; rejects with the error that ended a subscription. */
  readonly finished: Promise<void>;
  /** Whether `stop` was called. */
  stopped = false;

  /** @internal */
  constructor(broker: Broker, life: Life, drainMs: number) {
    this.#broker = broker;
    this.#life = life;
    this.#drainMs = drainMs;
    this.finished = new Promise((resolve, reject) => {
      this.#ended = { resolve, reject };
    });
    // Whoever does not wait for it is told by the event, or by the log.
    this.finished.catch(() => {});
    this.listener = {
      failed: ({ options }, event, outcome, error) => {
        const told = life.tell("failed", { subscription: options.name, event, error, outcome: outcome.kind });
        if (told || (outcome.kind !== "fail" && outcome.kind !== "timeout")) return;
        const type = outcome.errorTypes?.[0] ?? "Error";
        this.#broker.logger.warn(
          `the handler of ${options.name} failed on ${event.routingKey} ${event.id}: ${type}: ${outcome.message}`,
        );
      },
      broken: ({ options }, error) => {
        if (!life.tell("error", error, options.name)) {
          this.#broker.logger.error(`the subscription ${options.name} has ended: ${String(error)}`);
        }
        this.#ended.reject(error);
      },
    };
  }

  /** @internal Opens all, then runs all. */
  async begin(consumers: readonly Consumer[]): Promise<void> {
    this.#consumers = consumers;
    for (const consumer of consumers) {
      await consumer.open();
      if (this.stopped) throw failure("CLOSED", "the subscriber was stopped while it started");
    }
    bridge().hold();
    this.#holding = true;
    for (const consumer of consumers) consumer.run();
    this.#life.tell("started");
  }

  /** What each subscription is doing. */
  health(): SubscriptionHealth[] {
    return this.#consumers.flatMap((consumer) => {
      const health = consumer.native.health();
      return health === null ? [] : [JSON.parse(health) as SubscriptionHealth];
    });
  }

  /** All counters and gauges of the broker handle. */
  metrics(): Metric[] {
    return this.#broker.metrics();
  }

  /** Stops handing events of this subscription (of all, without a name) to its handler; those fetched go back. */
  async pause(subscription?: string): Promise<void> {
    await Promise.all(this.#find(subscription).map(({ native }) => bridge().call((op) => native.pause(op))));
  }

  /** Goes on after a pause. */
  async resume(subscription?: string): Promise<void> {
    await Promise.all(this.#find(subscription).map(({ native }) => bridge().call((op) => native.resume(op))));
  }

  /**
   * Drains: nothing new starts, handlers get the drain time-out to finish, the rest is released, no attempt spent.
   *
   * May be called twice. Aborting ends the wait, not the drain.
   *
   * @returns how many events were released unfinished.
   */
  stop(options: Abortable & { drainTimeout?: Delay | undefined } = {}): Promise<number> {
    const ms = options.drainTimeout === undefined ? this.#drainMs : toMs(options.drainTimeout, "drainTimeout");
    this.#stopping ??= this.#stop(ms);
    return abortable(this.#stopping, options.signal);
  }

  async #stop(ms: number): Promise<number> {
    this.stopped = true;
    this.#unlisten();
    for (const consumer of this.#consumers) consumer.end();
    try {
      const closed = this.#consumers.map(({ native }) => bridge().call<number>((op) => native.close(op, ms)));
      const unfinished = (await Promise.all(closed)).reduce((sum, one) => sum + one, 0);
      for (const consumer of this.#consumers) consumer.abort();
      this.#life.tell("stopped", unfinished);
      this.#ended.resolve();
      return unfinished;
    } finally {
      if (this.#holding) bridge().release();
      this.#holding = false;
    }
  }

  /** @internal */
  handleSignals(): void {
    const stop = (signal: NodeJS.Signals) => {
      this.stop()
        .catch((error) => this.#broker.logger.error(`draining at ${signal} failed: ${String(error)}`))
        // Handlers have finished; what else the process waits for is ended by the signal, as without a listener.
        .finally(() => process.kill(process.pid, signal));
    };
    process.once("SIGINT", stop);
    process.once("SIGTERM", stop);
    this.#unlisten = () => {
      // The signal that is being handled has removed its listener; a second one ends the process at once.
      process.off("SIGINT", stop);
      process.off("SIGTERM", stop);
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #find(subscription: string | undefined): readonly Consumer[] {
    if (subscription === undefined) return this.#consumers;
    const found = this.#consumers.filter((consumer) => consumer.registration.options.name === subscription);
    if (found.length > 0) return found;
    throw failure("SUBSCRIPTION_NOT_FOUND", "this subscriber has no such subscription", {
      field: "subscription",
      value: subscription,
      remedy: "add a handler for it before start()",
    });
  }
}

import { type Delay, toMs } from "./delay";
import { failure, typed } from "./error";
import { DomainEvent } from "./event";
import { type NativeOutboxRow, native } from "./native";
import { check, type Driver, recognise, type Statement } from "./outbox-drivers";
import { connect, type Store, type StoreRelay } from "./outbox-store";
import { carry } from "./telemetry";

/** An event with what only the outbox needs to know. */
export interface OutboxEvent {
  event: DomainEvent;
  /** Published then, not before. Until then it holds up no other event, also none of its key. */
  availableAt?: Date | undefined;
  /** Another exchange than the relay's. */
  exchange?: string | undefined;
}

/** Options of an {@link Outbox}. */
export interface OutboxOptions {
  /** Name of the table, or `schema.table` (default `tidings_outbox`). */
  table?: string | undefined;
  /** PostgreSQL: the commit wakes relays that listen. */
  notify?: boolean | undefined;
  /** The second writer of a key waits until the first has committed. */
  serialize?: boolean | undefined;
  /** Largest body in bytes (default 1 MiB). The relay's must not be smaller. */
  maxPayload?: number | undefined;
}

/** What one `add` can say. */
export interface AddOptions {
  /** Overrides that of the outbox. */
  serialize?: boolean | undefined;
  /** Does not look whether a transaction is open: for drivers that do not show it. */
  assumeTransaction?: boolean | undefined;
}

/** What a relay can be told. */
export interface RelayOptions {
  /** Where events go that name no exchange. */
  exchange?: string | undefined;
  /** Events that are published and settled together (1,000). */
  batch?: number | undefined;
  /** Largest body in bytes (1 MiB). */
  maxPayload?: number | undefined;
  /** How long others wait for a relay that says nothing (30 s). */
  lease?: Delay | undefined;
  /** Longest pause between two looks at the table (1 s; ten times that with `listen`). */
  pollInterval?: Delay | undefined;
  /** Time for a confirm (10 s); below half the lease. */
  publishTimeout?: Delay | undefined;
  /** Tries of an event that the broker refuses (20). */
  maxAttempts?: number | undefined;
  /** First pause before such a try (1 s), doubling … */
  initialBackoff?: Delay | undefined;
  /** … up to this (5 min). */
  maxBackoff?: Delay | undefined;
  /** Whether the later events of a key wait for a failed one (`block`, default) or go on. */
  onFailed?: "block" | "pass" | undefined;
  /** Keeps published rows for this time. Default: they are deleted. */
  keep?: Delay | undefined;
  /** PostgreSQL: is woken by writers that notify. */
  listen?: boolean | undefined;
}

/** How an outbox is. */
export interface OutboxStatus {
  pending: number;
  processed: number;
  failed: number;
  /** Age of the oldest row that should have been published, in seconds. */
  oldestSeconds: number | null;
}

/** A row that was given up on. */
export interface FailedRow {
  /** The row's number, for `retry` and `discard`. */
  id: number;
  eventId: string;
  routingKey: string;
  key: string | null;
  attempts: number;
  error: string;
}

/** What a relay is doing. */
export interface RelayHealth {
  working: boolean;
  /** Parts of the keys that it has, of 256. */
  parts: number;
  oldestSeconds: number | null;
  lastError: string | null;
}

const MAX_PAYLOAD = 1024 * 1024;

/**
 * The outbox: an event is published if and only if the transaction that wrote it commits.
 *
 * ```ts
 * const outbox = new Outbox("postgres://me@localhost/app");
 * await db.transaction(async (tx) => {
 *   await tx.insert(orders).values(order);
 *   await outbox.add(tx, new DomainEvent("order.placed", { order: 7 }));
 * });
 * const relay = await outbox.relay("amqp://localhost");
 * ```
 */
export class Outbox {
  readonly #url: string | undefined;
  readonly #options: OutboxOptions;
  #store: Promise<Store> | undefined;

  /** @param url the database, for relays and operators; default `TIDINGS_STORE_URL`. Writing needs none. */
  constructor(url?: string, options: OutboxOptions = {}) {
    this.#url = url;
    this.#options = options;
  }

  /**
   * Writes events on the caller's connection, in its open transaction; they are published if that commits. One statement
   * for up to 3,000 events and 8 MiB.
   *
   * Takes a client of pg, the transaction of postgres, a connection of mysql2, better-sqlite3, node:sqlite, or a transaction
   * of Knex, Drizzle, TypeORM or Prisma. `NO_TRANSACTION` where none is open, or where that is not shown.
   *
   * @returns a promise, except for better-sqlite3 and node:sqlite: they are written when it returns.
   */
  add(
    connection: unknown,
    events: DomainEvent | OutboxEvent | Iterable<DomainEvent | OutboxEvent>,
    options: AddOptions = {},
  ): Promise<void> | undefined {
    const driver = recognise(connection);
    const write = () => runAll(driver, this.statements(driver.dialect, driver.style, events, options));
    const checked = check(driver, options.assumeTransaction === true);
    return checked === undefined ? write() : checked.then(write);
  }

  /**
   * What `add` runs, for drivers that it does not know.
   *
   * @param dialect `postgres`, `mysql` or `sqlite`.
   * @param style how parameters are marked: `dollar` ($1), `question` (?), `format` (%s) or `named` (:p1).
   */
  statements(
    dialect: string,
    style: string,
    events: DomainEvent | OutboxEvent | Iterable<DomainEvent | OutboxEvent>,
    options: AddOptions = {},
  ): Statement[] {
    const { table = "tidings_outbox", notify = false, maxPayload = MAX_PAYLOAD } = this.#options;
    const serialize = options.serialize ?? this.#options.serialize ?? false;
    const many = Symbol.iterator in events ? [...events] : [events];
    const how = { dialect, style, table, notify, serialize, maxPayload };
    return typed(() => native().outboxInsert(how, many.map(rowOf)));
  }

  /** The tables as SQL, for a migration tool of your own: `postgres`, `mysql` or `sqlite`. */
  static schema(dialect: string, table = "tidings_outbox"): string {
    return typed(() => native().outboxSql(dialect, table, false));
  }

  /** Creates the tables, or brings them to this version. Any number of processes may do so at once. */
  async install(): Promise<void> {
    await this.#call("install", {});
  }

  /**
   * Starts a relay to the broker of `url`, or of the environment. Any number may run, in any number of processes. It runs
   * on the engine's threads, also while the event loop is busy; that of a SQLite file in a process of its own, which is
   * watched over and ends with this one.
   */
  async relay(url?: string, options: RelayOptions = {}): Promise<OutboxRelay> {
    const seconds = (what: keyof RelayOptions) => {
      const delay = options[what] as Delay | undefined;
      return delay === undefined ? undefined : toMs(delay, what) / 1000;
    };
    const settings = {
      exchange: options.exchange,
      batch: options.batch,
      max_payload: options.maxPayload,
      lease: seconds("lease"),
      poll_interval: seconds("pollInterval"),
      publish_timeout: seconds("publishTimeout"),
      max_attempts: options.maxAttempts,
      initial_backoff: seconds("initialBackoff"),
      max_backoff: seconds("maxBackoff"),
      on_failed: options.onFailed,
      keep: seconds("keep"),
      listen: options.listen,
    };
    const store = await this.#reach();
    return new OutboxRelay(await store.relay(url, JSON.stringify(settings)));
  }

  /** How many rows there are of each status. Counts all rows. */
  async status(): Promise<OutboxStatus> {
    const { oldest, ...counts } = await this.#call<{ oldest: number | null } & OutboxStatus>("status", {});
    return { ...counts, oldestSeconds: oldest };
  }

  /** Rows that were given up on, by number; the next page begins after the last one of this. */
  async failed(options: { after?: number; limit?: number } = {}): Promise<FailedRow[]> {
    const { after = 0, limit = 100 } = options;
    const rows = await this.#call<(FailedRow & { event_id: string; routing_key: string })[]>("failed", {
      after,
      limit,
    });
    return rows.map(({ event_id, routing_key, ...row }) => ({ ...row, eventId: event_id, routingKey: routing_key }));
  }

  /** Has these failed rows tried again, as if they had never failed; how many there were. */
  retry(ids: Iterable<number>): Promise<number> {
    return this.#call("retry", { ids: [...ids] });
  }

  /** Removes these failed rows; how many there were. What waits behind them goes on. */
  discard(ids: Iterable<number>): Promise<number> {
    return this.#call("discard", { ids: [...ids] });
  }

  /** Waits until nothing that is due is unpublished; `TIMEOUT` after `timeout` (default 30 s). */
  async drain(timeout: Delay = { seconds: 30 }): Promise<void> {
    await this.#call("drain", { seconds: toMs(timeout, "timeout") / 1000 });
  }

  /** Removes kept rows that were published longer ago than `age`, in small transactions; how many. */
  purge(age: Delay): Promise<number> {
    return this.#call("purge", { seconds: toMs(age, "age") / 1000 });
  }

  /** Lets go of the database. Stop relays before. */
  async close(): Promise<void> {
    const store = this.#store;
    this.#store = undefined;
    await (await store)?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #reach(): Promise<Store> {
    const url = this.#url ?? process.env.TIDINGS_STORE_URL;
    if (url === undefined || url === "") {
      const remedy = 'name it: new Outbox("postgres://…"), or set TIDINGS_STORE_URL';
      return Promise.reject(
        failure("INVALID_OPTION", "the outbox does not know its database", { field: "url", remedy }),
      );
    }
    this.#store ??= connect(url, this.#options.table ?? "tidings_outbox").catch((error) => {
      this.#store = undefined;
      throw error;
    });
    return this.#store;
  }

  async #call<T>(operation: string, request: object): Promise<T> {
    const store = await this.#reach();
    return JSON.parse(await store.call(operation, JSON.stringify(request))) as T;
  }
}

/** A relay that runs. Ends with the process, or when it is stopped. */
export class OutboxRelay {
  readonly #inner: StoreRelay;

  /** @internal */
  constructor(inner: StoreRelay) {
    this.#inner = inner;
  }

  /** What it is doing. */
  async health(): Promise<RelayHealth> {
    return JSON.parse(await this.#inner.health()) as RelayHealth;
  }

  /** Its counters and gauges by name; first of all `tidings_outbox_oldest_seconds`. */
  async metrics(): Promise<Record<string, number>> {
    return JSON.parse(await this.#inner.metrics()) as Record<string, number>;
  }

  /** Finishes what is on its way, hands over to other relays and ends. */
  stop(): Promise<void> {
    return this.#inner.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** @internal An event as the addon takes it. */
export function rowOf(one: DomainEvent | OutboxEvent): NativeOutboxRow {
  const { event, availableAt, exchange }: OutboxEvent = one instanceof DomainEvent ? { event: one } : one;
  const { seconds, headers } = event.parts();
  const carried = carry(headers);
  return {
    routingKey: event.routingKey,
    data: event.json,
    id: event.id,
    timestamp: seconds,
    domainObjectId: event.domainObjectId ?? undefined,
    headers: carried === null ? undefined : JSON.stringify(carried),
    availableAt: availableAt === undefined ? undefined : availableAt.getTime() / 1000,
    exchange,
  };
}

/** In order; synchronous drivers are done when it returns. */
function runAll(driver: Driver, statements: Statement[]): Promise<void> | undefined {
  for (const [at, statement] of statements.entries()) {
    const ran = driver.run(statement);
    if (ran instanceof Promise) return ran.then(() => runAll(driver, statements.slice(at + 1)));
  }
  return undefined;
}

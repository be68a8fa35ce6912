import { setTimeout as sleep } from "node:timers/promises";
import { type Delay, toMs } from "./delay";
import { typed } from "./error";
import type { DomainEvent } from "./event";
import { type NativeInboxRest, type NativeMemoryClaim, type NativeMemoryClaims, native } from "./native";
import { rowOf } from "./outbox";
import { check, type Driver, recognise } from "./outbox-drivers";
import { StoreFailed } from "./outcome";

/** Runs `body` in a transaction, commits when it resolves and rolls back when it rejects: `(body) => db.transaction(body)`. */
export type OpenTransaction<Tx> = (body: (tx: Tx) => Promise<void>) => Promise<unknown>;

/**
 * Remembers which events a subscription has processed, in the handler's own transaction: effects happen once, although an
 * event may be delivered again.
 *
 * ```ts
 * const inbox = new Inbox((body) => db.transaction(body));
 * subscriber.handle("order.*", { name: "billing", inbox }, async (event, tx) => {
 *   await tx.insert(bills).values({ order: event.data.order });
 * });
 * ```
 *
 * A handler that throws, whatever it throws, rolls back. Where opening, the claim or the commit fails, the handler rests with
 * growing pauses (0.1 s to 30 s) and the event goes back to the queue: no attempt is spent.
 */
export class Inbox<Tx = unknown> {
  readonly #open: OpenTransaction<Tx> | undefined;
  readonly #table: string;
  #resting: NativeInboxRest | undefined;

  constructor(open?: OpenTransaction<Tx>, options: { table?: string | undefined } = {}) {
    this.#open = open;
    this.#table = options.table ?? "tidings_inbox";
  }

  /** The table as SQL: `postgres`, `mysql` or `sqlite`. */
  static schema(dialect: string, table = "tidings_inbox"): string {
    return typed(() => native().outboxSql(dialect, table, true));
  }

  /**
   * Claims the event in the transaction `tx`, for those who open their own. `true`: it is new, go on. `false`: `subscription`
   * has processed it, acknowledge it without doing anything. The key is the event's idempotency key, else its id, within
   * its tenant.
   */
  async claim(
    tx: unknown,
    event: DomainEvent,
    subscription: string,
    options: { assumeTransaction?: boolean } = {},
  ): Promise<boolean> {
    const driver = recognise(tx);
    await check(driver, options.assumeTransaction === true);
    const claim = typed(() => native().inboxClaim(this.#rendering(driver), subscription, rowOf(event)));
    return (await driver.run(claim)) === 1;
  }

  /** Forgets up to `limit` events that were processed longer ago than `age` (default 7 days); how many. */
  async forget(tx: unknown, age: Delay = { seconds: 7 * 86_400 }, limit = 1000): Promise<number> {
    const driver = recognise(tx);
    return driver.run(typed(() => native().inboxForget(this.#rendering(driver), toMs(age, "age"), limit)));
  }

  /** @internal Runs a handler in a transaction with its claim. */
  async run(subscription: string, event: DomainEvent, handle: (tx: Tx) => unknown): Promise<void> {
    const open = this.#open;
    if (open === undefined)
      throw new TypeError("the inbox opens no transactions: new Inbox((body) => db.transaction(body))");
    let failed: { error: unknown } | undefined;
    try {
      await open(async (tx) => {
        // What the program opened is a transaction, whether its driver shows it or not.
        if (!(await this.claim(tx, event, subscription, { assumeTransaction: true }))) return;
        try {
          await handle(tx);
        } catch (error) {
          failed = { error };
          throw error;
        }
      });
    } catch (error) {
      if (failed !== undefined) throw failed.error;
      await this.#rest();
      throw new StoreFailed("the inbox's database failed", { cause: error });
    }
    this.#resting?.worked();
  }

  #rest(): Promise<void> {
    this.#resting ??= new (native().InboxRest)();
    return pause(this.#resting.failed());
  }

  #rendering({ dialect, style }: Driver) {
    return { dialect, style, table: this.#table, notify: false, serialize: false, maxPayload: 0 };
  }
}

/** How long a {@link MemoryInbox} remembers, and how long a claim lasts that nobody renews. */
export interface MemoryInboxOptions {
  /** Default 1 h. At most a million events are remembered. */
  keep?: Delay | undefined;
  /** Default 30 s. A handler's claim is renewed for as long as it runs. */
  lease?: Delay | undefined;
}

/**
 * Remembers in this process what a subscription has processed, for a time: for handlers without a database.
 *
 * As `inbox` of a subscription it changes nothing about the handler, which is `(event, context)`. An event is claimed before
 * it, completed when it resolves and released when it throws. What was processed is acknowledged without the handler; what
 * somebody else is at goes back to the queue after a pause, no attempt spent. A process that ends forgets everything, and
 * every process has a memory of its own: what must never be repeated needs {@link Inbox}.
 *
 * ```ts
 * subscriber.handle("order.*", { name: "mails", inbox: new MemoryInbox() }, async (event) => sendMail(event.data));
 * ```
 */
export class MemoryInbox {
  readonly #keepMs: number;
  readonly #leaseMs: number;
  #claims: NativeMemoryClaims | undefined;

  constructor(options: MemoryInboxOptions = {}) {
    this.#keepMs = toMs(options.keep ?? { seconds: 3600 }, "keep");
    this.#leaseMs = toMs(options.lease ?? { seconds: 30 }, "lease");
  }

  /**
   * Claims the event, for those who run their own; `undefined` if `subscription` has processed it. `STORE_BUSY` while
   * somebody else has it, `STORE_FULL` once a million are remembered. The key is the event's idempotency key, else its id,
   * within its tenant.
   */
  claim(event: DomainEvent, subscription: string): MemoryClaim | undefined {
    return typed(() => this.#native.claim(subscription, rowOf(event))) ?? undefined;
  }

  /** @internal Runs a handler between claim and completion. */
  async run(subscription: string, event: DomainEvent, handle: () => unknown): Promise<void> {
    const turn = typed(() => this.#native.turn(subscription, rowOf(event)));
    if (turn === null) return;
    if (typeof turn === "number") {
      await pause(turn);
      throw new StoreFailed("the event is being processed, or the inbox is full");
    }
    try {
      await handle();
    } catch (error) {
      turn.release();
      throw error;
    }
    turn.complete();
  }

  get #native(): NativeMemoryClaims {
    this.#claims ??= new (native().MemoryClaims)(this.#keepMs, this.#leaseMs);
    return this.#claims;
  }
}

/**
 * An event that is ours to process: `complete()` it on success, `release()` it on failure, `renew()` it before its lease
 * ends. `complete` and `renew` are `false` if it had ended before.
 */
export type MemoryClaim = NativeMemoryClaim;

function pause(ms: number): Promise<void> {
  return sleep(ms, undefined, { ref: false });
}

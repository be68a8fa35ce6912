import { setTimeout as sleep } from "node:timers/promises";
import { type Delay, toMs } from "./delay";
import { typed } from "./error";
import type { DomainEvent } from "./event";
import { native } from "./native";
import { rowOf } from "./outbox";
import { check, type Driver, recognise } from "./outbox-drivers";
import { StoreFailed } from "./outcome";

/** Pause after the database has failed, in milliseconds: at first, and at most. */
const PAUSE = 100;
const PAUSE_MAX = 30_000;

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
 * growing pauses and the event goes back to the queue: no attempt is spent.
 */
export class Inbox<Tx = unknown> {
  readonly #open: OpenTransaction<Tx> | undefined;
  readonly #table: string;
  #failures = 0;

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
    this.#failures = 0;
  }

  #rest(): Promise<void> {
    const pause = Math.min(PAUSE * 2 ** Math.min(this.#failures, 10), PAUSE_MAX);
    this.#failures += 1;
    return sleep(pause, undefined, { ref: false });
  }

  #rendering({ dialect, style }: Driver) {
    return { dialect, style, table: this.#table, notify: false, serialize: false, maxPayload: 0 };
  }
}

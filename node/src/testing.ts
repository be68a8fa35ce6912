/// <reference lib="esnext.disposable" preserve="true" />

// A broker for tests: in memory, with a clock that stands still until the test moves it. Works under node:test, vitest
// and jest, also beside their fake timers.

import { setImmediate, setTimeout } from "node:timers";
import { Broker, type BrokerOptions } from "./broker";
import type { DomainEvent } from "./event";

/**
 * A broker in memory with virtual time.
 *
 * ```ts
 * const broker = new TestBroker();
 * const subscriber = new Subscriber(broker);
 * subscriber.handle("order.*", { name: "billing", maxRetries: 3 }, bill);
 * await subscriber.start();
 * await new Publisher(broker).publish("order.placed", { id: 7 });
 * await broker.advance(3_600_000);                    // an hour of retries
 * assert.equal((await broker.deadLetters("billing")).length, 0);
 * await subscriber.stop();
 * await broker.close();
 * ```
 */
export class TestBroker extends Broker {
  readonly #published: DomainEvent[];

  constructor(options: BrokerOptions = {}) {
    const published: DomainEvent[] = [];
    super(undefined, options, (event) => published.push(event()));
    this.#published = published;
  }

  /** What was published through this broker so far, in order of the confirms. Retries and replays are not. */
  published(routingKey?: string): DomainEvent[] {
    return this.#published.filter((event) => routingKey === undefined || event.routingKey === routingKey);
  }

  /** Moves the clock by so many milliseconds; what comes due on the way is handled at its time. */
  async advance(ms: number): Promise<void> {
    if (!Number.isFinite(ms) || ms < 0) throw new TypeError(`advance() needs milliseconds of at least 0, not ${ms}`);
    let left = ms;
    for (;;) {
      await this.settleAll();
      const due = await this.call<number>((op) => this.native.nextDue(op));
      // What is due in the middle of a millisecond is passed by less than one.
      const step = due < 0 ? left : Math.min(left, Math.max(due, 0.001));
      await this.call((op) => this.native.advance(op, step));
      left -= step;
      if (left <= 0) break;
    }
    await this.settleAll();
  }

  /**
   * Waits until nothing is left to be handled at the present time: no handler runs, nothing waits for one. Not from
   * within a handler, and not while an iterator has an event in hand.
   */
  async settleAll(): Promise<void> {
    // Two looks in a row: what a handler has begun without waiting for it comes one turn later.
    for (let calm = 0, looks = 0; calm < 2; looks += 1) {
      const idle = await this.call<number>((op) => this.native.isIdle(op));
      calm = idle === 1 ? calm + 1 : 0;
      await new Promise<void>((resolve) => {
        // Handlers that wait for something real are not waited for at full speed.
        if (looks < 100) setImmediate(resolve);
        else setTimeout(resolve, 1);
      });
    }
  }
}

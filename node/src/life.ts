import type { DomainEvent } from "./event";

/** What a subscriber tells of its life. Events of the domain never come this way: they have handlers. */
export interface LifeEvents {
  /** Every subscription is declared, handlers run. */
  started: [];
  /** Drained; so many events were released unfinished. */
  stopped: [unfinished: number];
  /** A handler has failed or asked for something else than an acknowledgement. */
  failed: [details: { subscription: string; event: DomainEvent; error: unknown; outcome: string }];
  /** A subscription has ended by an error that it cannot recover from. */
  error: [error: unknown, subscription: string];
}

type Listener<K extends keyof LifeEvents> = (...details: LifeEvents[K]) => void;

/** Something whose life can be listened to. */
export abstract class Life {
  readonly #listeners = new Map<keyof LifeEvents, Set<unknown>>();

  /** Calls `listener` whenever it happens. */
  on<K extends keyof LifeEvents>(name: K, listener: Listener<K>): this {
    if (!["started", "stopped", "failed", "error"].includes(name)) {
      throw new TypeError(`there is no life-cycle event "${name}"; events of the domain are handled with handle()`);
    }
    const listeners = this.#listeners.get(name) ?? new Set();
    listeners.add(listener);
    this.#listeners.set(name, listeners);
    return this;
  }

  /** Calls `listener` the next time it happens. */
  once<K extends keyof LifeEvents>(name: K, listener: Listener<K>): this {
    const first: Listener<K> = (...details) => {
      this.off(name, first);
      listener(...details);
    };
    return this.on(name, first);
  }

  /** Calls `listener` no more. */
  off<K extends keyof LifeEvents>(name: K, listener: Listener<K>): this {
    this.#listeners.get(name)?.delete(listener);
    return this;
  }

  /** @internal Tells the listeners; whether there was one. */
  tell<K extends keyof LifeEvents>(name: K, ...details: LifeEvents[K]): boolean {
    const listeners = this.#listeners.get(name);
    if (listeners === undefined || listeners.size === 0) return false;
    for (const listener of [...listeners]) (listener as Listener<K>)(...details);
    return true;
  }
}

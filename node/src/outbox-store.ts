// The outbox's table, reached by the engine: in this process, or in one that is watched over.

import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { bridge, outside } from "./bridge";
import { failure, fromNative } from "./error";
import { type NativeOutboxRelay, type NativeOutboxStore, native } from "./native";

/** @internal */
export interface Store {
  call(operation: string, request: string): Promise<string>;
  relay(url: string | undefined, settings: string): Promise<StoreRelay>;
  close(): Promise<void>;
}

/** @internal */
export interface StoreRelay {
  /** JSON. */
  health(): Promise<string>;
  /** JSON. */
  metrics(): Promise<string>;
  stop(): Promise<void>;
}

/**
 * @internal Two copies of SQLite in one process corrupt the file that both have open, and Node's packages have copies of
 * their own: the engine's is in another process.
 */
export function connect(url: string, table: string): Promise<Store> {
  return url.startsWith("sqlite:") ? ChildStore.start(url, table) : NativeStore.connect(url, table);
}

/** @internal The engine in this process. */
export class NativeStore implements Store {
  readonly #native: NativeOutboxStore;

  private constructor(store: NativeOutboxStore) {
    this.#native = store;
  }

  static async connect(url: string, table: string): Promise<Store> {
    const { OutboxStore } = native();
    const store = new OutboxStore(bridge().native);
    await outside(() => bridge().call((op) => store.connect(op, url, table)));
    return new NativeStore(store);
  }

  call(operation: string, request: string): Promise<string> {
    return bridge().call((op) => this.#native.call(op, operation, request));
  }

  async relay(url: string | undefined, settings: string): Promise<StoreRelay> {
    const { OutboxRelay } = native();
    const relay: NativeOutboxRelay = new OutboxRelay(this.#native);
    await outside(() => bridge().call((op) => relay.start(op, url, settings)));
    return {
      health: async () => relay.health(),
      metrics: async () => relay.metrics(),
      stop: async () => {
        await bridge().call((op) => relay.stop(op));
      },
    };
  }

  async close(): Promise<void> {
    await bridge().call((op) => this.#native.close(op));
  }
}

/** Pause before a process that died is started again, in milliseconds: at first, and at most. */
const PAUSE = 200;
const PAUSE_MAX = 10_000;

interface Waiting {
  resolve(value: string): void;
  reject(error: unknown): void;
}

/** @internal The engine in a process of its own, started again when it dies; ends with this process. */
export class ChildStore implements Store {
  readonly #first: string;
  readonly #folder = process.cwd();
  readonly #waiting = new Map<number, Waiting>();
  /** What each relay was started with. */
  readonly #relays = new Map<number, object>();
  #child!: ChildProcess;
  #last = 0;
  #pause = PAUSE;
  /** Whether the process runs, as far as is known. */
  #up = false;
  /** Whether it has ever reached the file. */
  #worked = false;
  #closed = false;
  #ended: Promise<unknown> = Promise.resolve();

  private constructor(url: string, table: string) {
    this.#first = JSON.stringify({ store: url, table });
  }

  static async start(url: string, table: string): Promise<ChildStore> {
    const store = new ChildStore(url, table);
    await store.#spawn();
    return store;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  call(operation: string, request: string): Promise<string> {
    return this.#ask({ do: "call", operation, request });
  }

  async relay(url: string | undefined, settings: string): Promise<StoreRelay> {
    this.#last += 1;
    const relay = this.#last;
    const asked = { do: "relay", relay, url, settings };
    await this.#ask(asked);
    this.#relays.set(relay, asked);
    return {
      health: () => this.#ask({ do: "health", relay }),
      metrics: () => this.#ask({ do: "metrics", relay }),
      stop: async () => {
        // With the process the relay is gone too, and it is not started again.
        if (this.#relays.delete(relay) && this.#up) await this.#ask({ do: "stop", relay });
      },
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    // Its end is waited for.
    this.#keepAlive();
    this.#child.stdin?.end();
    await this.#ended;
  }

  #ask(request: object): Promise<string> {
    if (this.#closed) {
      return Promise.reject(failure("CLOSED", "the outbox was closed", { remedy: "make another one" }));
    }
    if (!this.#up) return Promise.reject(lost());
    return new Promise((resolve, reject) => {
      this.#last += 1;
      this.#waiting.set(this.#last, { resolve, reject });
      this.#keepAlive();
      this.#child.stdin?.write(`${JSON.stringify({ id: this.#last, ...request })}\n`);
    });
  }

  /** The process keeps ours alive only while somebody waits for its answer. */
  #keepAlive(): void {
    const how = this.#waiting.size > 0 || this.#closed ? "ref" : "unref";
    this.#child[how]();
    // Pipes to a process are sockets.
    for (const pipe of [this.#child.stdin, this.#child.stdout]) (pipe as Socket | null)?.[how]();
  }

  async #spawn(): Promise<void> {
    const child = spawn(process.execPath, [join(__dirname, "outbox-child.js")], {
      cwd: this.#folder,
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#child = child;
    this.#up = true;
    // A pipe that is gone shows as the end of the process.
    child.stdin.on("error", () => {});
    const started = new Promise<string>((resolve, reject) => this.#waiting.set(0, { resolve, reject }));
    createInterface({ input: child.stdout }).on("line", (line) => this.#answered(line));
    this.#ended = new Promise((resolve) => {
      child.on("error", resolve);
      child.on("close", resolve);
    }).then(() => this.#gone());
    child.stdin.write(`${this.#first}\n`);
    await started;
    this.#worked = true;
    this.#pause = PAUSE;
  }

  #answered(line: string): void {
    const { id, ok, error } = JSON.parse(line) as { id: number; ok?: string; error?: string };
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    this.#keepAlive();
    if (error !== undefined) waiting?.reject(fromNative(error));
    else waiting?.resolve(ok ?? "");
  }

  #gone(): void {
    this.#up = false;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) one.reject(lost());
    // One that never worked is the caller's to try again.
    if (this.#closed || !this.#worked) return;
    setTimeout(() => void this.#again(), this.#pause).unref();
    this.#pause = Math.min(this.#pause * 2, PAUSE_MAX);
  }

  async #again(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.#spawn();
    } catch {
      // Its end has been seen, and the next try is on its way.
      return;
    }
    for (const asked of this.#relays.values()) void this.#ask({ ...asked, again: true }).catch(() => {});
  }
}

function lost(): Error {
  return failure("CONNECTION_FAILED", "the process that works on the file ended", {
    remedy: "try again: it is started again",
  });
}

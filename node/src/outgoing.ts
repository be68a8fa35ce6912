// Events on their way into the engine: those of one turn of the event loop cross together, and so do their receipts.

import { bridge, type Waiting } from "./bridge";
import type { NativePublisher } from "./native";

/** As it is when the package is loaded: jest's fake timers replace it by one that a test has to drive. */
const { nextTick } = process;

/** Events of one publisher that are handed to the engine and not confirmed; further ones wait for their turn. */
const MOST_IN_FLIGHT = 8192;

/** Events whose end a `flush` waits for together. */
interface Wave {
  open: number;
  over: (() => void) | undefined;
}

/** An event on its way: its text, and who is told what came of it. */
export abstract class Outgoing implements Waiting {
  /** @internal */
  wave: Wave | undefined;
  /** @internal */
  line: Line | undefined;

  /** @param text four lines: routing key, object id, what else is said, data (see {@link lineOf}). */
  constructor(readonly text: string) {}

  protected abstract accepted(id: string, routed: boolean | null): void;
  protected abstract refused(error: unknown): void;

  answered(id: unknown, routed?: boolean | null): void {
    this.line?.over(this);
    this.accepted(id as string, routed ?? null);
  }

  failed(error: unknown): void {
    this.line?.over(this);
    this.refused(error);
  }
}

/** Text as a line: itself, or JSON of it where it could be taken for something else. */
export function lineOf(text: string): string {
  return text === "" || text.startsWith('"') || text.includes("\n") ? JSON.stringify(text) : text;
}

/** The events of one publisher in the order of the calls. */
export class Line {
  readonly #native: NativePublisher;
  #waiting: Outgoing[] = [];
  #inFlight = 0;
  #wave: Wave = { open: 0, over: undefined };
  #earlier: Promise<unknown> = Promise.resolve();
  #opened = false;
  #scheduled = false;

  constructor(native: NativePublisher) {
    this.#native = native;
  }

  /** Takes an event in. It crosses at the end of this turn, once the line is open and there is room. */
  add(event: Outgoing): void {
    event.line = this;
    event.wave = this.#wave;
    this.#wave.open += 1;
    this.#waiting.push(event);
    this.#schedule();
  }

  /** The engine is ready. */
  open(): void {
    this.#opened = true;
    this.#schedule();
  }

  /** What has not crossed fails. */
  fail(error: unknown): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#inFlight += waiting.length;
    for (const event of waiting) event.failed(error);
  }

  /** Resolves once everything that is in the line now is confirmed or has failed. */
  async settled(): Promise<void> {
    const wave = this.#wave;
    if (wave.open > 0) {
      const over = new Promise<void>((resolve) => {
        wave.over = resolve;
      });
      this.#earlier = Promise.all([this.#earlier, over]);
      this.#wave = { open: 0, over: undefined };
    }
    await this.#earlier;
  }

  /** @internal An event has its outcome. */
  over({ wave }: Outgoing): void {
    this.#inFlight -= 1;
    if (wave !== undefined) {
      wave.open -= 1;
      if (wave.open === 0) wave.over?.();
    }
    if (this.#waiting.length > 0) this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || !this.#opened) return;
    this.#scheduled = true;
    nextTick(() => {
      this.#scheduled = false;
      this.#cross();
    });
  }

  #cross(): void {
    const room = MOST_IN_FLIGHT - this.#inFlight;
    if (room <= 0 || this.#waiting.length === 0) return;
    const batch = this.#waiting.length <= room ? this.#waiting : this.#waiting.slice(0, room);
    this.#waiting = batch === this.#waiting ? [] : this.#waiting.slice(room);
    this.#inFlight += batch.length;
    const ops = new Uint32Array(batch.length);
    let text = "";
    for (let at = 0; at < batch.length; at += 1) {
      const event = batch[at] as Outgoing;
      ops[at] = bridge().expect(event);
      text += event.text;
    }
    this.#native.publish(ops, text);
  }
}

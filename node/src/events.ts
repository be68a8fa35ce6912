// The async iterator over a subscription's events.

import { type AbortSignalLike, abortable, throwIfAborted } from "./abort";
import { bridge } from "./bridge";
import type { Broker } from "./broker";
import { Delivery } from "./delivery";
import { DomainEvent } from "./event";
import { type NativeOptions, native, type RawBatch } from "./native";
import { outcomeOf, type Redact } from "./outcome";
import { type StandardSchema, validated } from "./schema";

/** Events to be iterated once. `return()`, a `break` and an error in the loop release what is unsettled. */
export interface DeliveryStream<T = unknown> extends AsyncIterableIterator<Delivery<T>> {
  next(): Promise<IteratorResult<Delivery<T>, undefined>>;
  return(): Promise<IteratorResult<Delivery<T>, undefined>>;
  [Symbol.asyncIterator](): DeliveryStream<T>;
  [Symbol.asyncDispose](): Promise<void>;
}

interface IterateOptions<T> {
  schema: StandardSchema<T> | undefined;
  redact: Redact | undefined;
  signal: AbortSignalLike | undefined;
}

export function iterate<T>(broker: Broker, options: NativeOptions, more: IterateOptions<T>): DeliveryStream<T> {
  return new Stream<T>(broker, options, more);
}

class Stream<T> implements DeliveryStream<T> {
  readonly #broker: Broker;
  readonly #options: NativeOptions;
  readonly #more: IterateOptions<T>;
  readonly #native;
  #opening: Promise<void> | undefined;
  #current: Delivery<T> | undefined;
  #closing: Promise<unknown> | undefined;
  /** Calls of `next` are answered one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(broker: Broker, options: NativeOptions, more: IterateOptions<T>) {
    this.#broker = broker;
    this.#options = options;
    this.#more = more;
    const { Subscription } = native();
    this.#native = new Subscription(broker.native);
  }

  next(): Promise<IteratorResult<Delivery<T>, undefined>> {
    const next = this.#turn.then(() => this.#next());
    this.#turn = next.catch(() => {});
    return next;
  }

  async return(): Promise<IteratorResult<Delivery<T>, undefined>> {
    await this.#close();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): DeliveryStream<T> {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }

  async #next(): Promise<IteratorResult<Delivery<T>, undefined>> {
    const { signal } = this.#more;
    try {
      throwIfAborted(signal);
      this.#current?.settleSoon({ kind: "ok" });
      this.#current = undefined;
      if (this.#closing !== undefined) return { done: true, value: undefined };
      this.#opening ??= this.#broker.call<void>(
        (op) => this.#native.open(op, this.#options),
        () => undefined,
      );
      await abortable(this.#opening, signal);
      for (;;) {
        const batch = await this.#pull(signal);
        if (batch.length === 0) {
          await this.#close();
          return { done: true, value: undefined };
        }
        const delivery = await this.#delivery(batch);
        if (delivery !== undefined) {
          this.#current = delivery;
          return { done: false, value: delivery };
        }
      }
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  async #pull(signal: AbortSignalLike | undefined): Promise<RawBatch> {
    const there = this.#native.tryNext(1);
    if (there === null || there.length > 0) return there ?? [];
    // After an abort the closing makes it answer; what it has taken until then is released with the rest.
    return abortable(
      bridge().call<RawBatch>((op) => this.#native.next(op, 1)),
      signal,
    );
  }

  /** The delivery; `undefined` if its data did not fit the schema, which has settled it. */
  async #delivery(batch: RawBatch): Promise<Delivery<T> | undefined> {
    const delivery = new Delivery<T>(this.#native, batch[0] as number, DomainEvent.read(batch, 0));
    const { schema, redact } = this.#more;
    if (schema === undefined) return delivery;
    try {
      delivery.take((await validated(schema, delivery)).data);
      return delivery;
    } catch (error) {
      delivery.settleSoon(outcomeOf(error, redact));
      return undefined;
    }
  }

  /** Releases the current event and everything fetched. */
  async #close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#current?.settleSoon({ kind: "release" });
      this.#current = undefined;
      this.#closing =
        this.#opening === undefined ? Promise.resolve() : bridge().call((op) => this.#native.close(op, 0));
    }
    await this.#closing;
  }
}

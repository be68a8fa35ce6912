import { type HeaderValue, native, type RawBatch } from "./native";

/** What a new {@link DomainEvent} can be told beside its routing key and data. */
export interface EventOptions {
  /** Identifier of the entity that the event is about; also the ordering key unless `key` says otherwise. */
  domainObjectId?: string | undefined;
  /** The event's id: 1 to 255 bytes. Made by the engine (UUIDv7) if it is missing. */
  id?: string | undefined;
  /** When it happened; the time now if it is missing. */
  timestamp?: Date | undefined;
  /** Ordering key: `ordered` subscriptions handle the events of one key one at a time, in order. */
  key?: string | undefined;
  /** Tenant that the event belongs to. */
  tenant?: string | undefined;
  /** De-duplication key; the event's id if it is missing. */
  idempotencyKey?: string | undefined;
  /** Further headers, together at most 64 KiB. */
  headers?: Record<string, HeaderValue> | undefined;
  /** The event that led to this one: its correlation id, trace and tenant are taken over. */
  causedBy?: DomainEvent | undefined;
}

/** The five keys of an event's body on the wire. */
export interface WireEvent {
  routing_key: string;
  data: unknown;
  domain_object_id: string | null;
  uuid_string: string;
  timestamp: number;
}

/** Headers that an event takes over from the one that caused it. */
const INHERITED = ["traceparent", "tracestate", "baggage", "tidings-tenant"];

interface Parts {
  routingKey: string;
  id: string | undefined;
  seconds: number;
  domainObjectId: string | null;
  retries: number;
  headers: Record<string, HeaderValue> | null;
  json: string;
}

/** Tells the constructor that parts come from the engine. */
const received = Symbol("received");

/**
 * What happened: a routing key, data, an id and a time. Immutable; `data` is parsed when it is first asked for.
 *
 * ```ts
 * const event = new DomainEvent("user.registered", { userId: 7 }, { domainObjectId: "7" });
 * ```
 *
 * Integers beyond 2^53 lose digits in `data`; `json` has the text that travelled.
 */
export class DomainEvent<T = unknown> {
  /** `<domain>.<event type>`, words separated by dots. */
  readonly routingKey: string;
  /** Identifier of the entity that the event is about. */
  readonly domainObjectId: string | null;
  /** How often the subscription that got this event has already tried it: 0 on the first delivery. */
  readonly retries: number;
  /** The data as the JSON text that travels. */
  readonly json: string;
  readonly #headers: Record<string, HeaderValue> | null;
  /** Seconds since the Unix epoch, to the microsecond. */
  readonly #seconds: number;
  #id: string | undefined;
  #data: T | undefined;
  #parsed = false;

  /** @throws TypeError if `data` has no JSON form (`undefined`, a function, a BigInt, a cycle, NaN or Infinity). */
  constructor(routingKey: string, data: T, options?: EventOptions);
  /** @internal */
  constructor(mark: typeof received, parts: Parts);
  constructor(first: string | typeof received, second: unknown, options: EventOptions = {}) {
    const parts = first === received ? (second as Parts) : partsOf(first as string, second, options);
    this.routingKey = parts.routingKey;
    this.#id = parts.id;
    this.#seconds = parts.seconds;
    this.domainObjectId = parts.domainObjectId;
    this.retries = parts.retries;
    this.#headers = parts.headers;
    this.json = parts.json;
  }

  /** The event's id, unique. */
  get id(): string {
    this.#id ??= native().newId();
    return this.#id;
  }

  /** The data. */
  get data(): T {
    if (!this.#parsed) {
      this.#data = JSON.parse(this.json) as T;
      this.#parsed = true;
    }
    return this.#data as T;
  }

  /** When it happened. */
  get timestamp(): Date {
    return new Date(this.#seconds * 1000);
  }

  /** All headers. */
  get headers(): Readonly<Record<string, HeaderValue>> {
    return this.#headers ?? {};
  }

  /** The ordering key: header `tidings-key`, else the `domainObjectId`. */
  get key(): string | null {
    return this.#text("tidings-key") ?? this.domainObjectId;
  }

  /** The tenant, if the event belongs to one. */
  get tenant(): string | null {
    return this.#text("tidings-tenant");
  }

  /** Id shared by everything that one request set off. */
  get correlationId(): string | null {
    return this.#text("tidings-correlation-id");
  }

  /** Id of the event that caused this one. */
  get causationId(): string | null {
    return this.#text("tidings-causation-id");
  }

  /** What an inbox remembers: the idempotency key, else the id. */
  get idempotencyKey(): string {
    return this.#text("tidings-idempotency-key") ?? this.id;
  }

  /** The event with other data (as a schema has parsed it); everything else stays. */
  withData<U>(data: U): DomainEvent<U> {
    const copy = new DomainEvent<U>(received, this.parts());
    copy.take(data);
    return copy;
  }

  /** The event's body as it travels: the five keys. */
  toJSON(): WireEvent {
    return {
      routing_key: this.routingKey,
      data: this.data,
      domain_object_id: this.domainObjectId,
      uuid_string: this.id,
      timestamp: this.#seconds,
    };
  }

  /** @internal Puts in data that were parsed elsewhere. */
  take(data: T): void {
    this.#data = data;
    this.#parsed = true;
  }

  /** @internal */
  parts(): Parts {
    return {
      routingKey: this.routingKey,
      id: this.id,
      seconds: this.#seconds,
      domainObjectId: this.domainObjectId,
      retries: this.retries,
      headers: this.#headers,
      json: this.json,
    };
  }

  /** @internal The event that a subclass is made of. */
  static read(batch: RawBatch, at: number): Parts {
    return {
      routingKey: batch[at + 1] as string,
      id: batch[at + 2] as string,
      seconds: batch[at + 3] as number,
      domainObjectId: batch[at + 4] as string | null,
      retries: batch[at + 5] as number,
      headers: batch[at + 6] as Record<string, HeaderValue> | null,
      json: batch[at + 7] as string,
    };
  }

  /** @internal The event whose number is at `at` of a batch. */
  static received(parts: Parts): DomainEvent {
    return new DomainEvent(received, parts);
  }

  #text(name: string): string | null {
    const value = this.#headers?.[name];
    return typeof value === "string" ? value : null;
  }
}

export type { Parts };
/** @internal */
export { received };

/** Fields of one event in a batch. */
export const FIELDS = 8;

function partsOf(routingKey: string, data: unknown, options: EventOptions): Parts {
  return {
    routingKey,
    id: options.id,
    seconds: (options.timestamp?.getTime() ?? Date.now()) / 1000,
    domainObjectId: options.domainObjectId ?? null,
    retries: 0,
    headers: headersOf(options),
    json: toJson(data),
  };
}

/** The headers that the options ask for; `null` if there are none. */
export function headersOf(options: EventOptions): Record<string, HeaderValue> | null {
  const headers: Record<string, HeaderValue> = {};
  const cause = options.causedBy;
  if (cause !== undefined) {
    for (const name of INHERITED) {
      const value = cause.headers[name];
      if (value !== undefined) headers[name] = value;
    }
    headers["tidings-correlation-id"] = cause.correlationId ?? cause.id;
    headers["tidings-causation-id"] = cause.id;
  }
  if (options.headers !== undefined) Object.assign(headers, options.headers);
  if (options.key !== undefined) headers["tidings-key"] = options.key;
  if (options.tenant !== undefined) headers["tidings-tenant"] = options.tenant;
  if (options.idempotencyKey !== undefined) headers["tidings-idempotency-key"] = options.idempotencyKey;
  return Object.keys(headers).length > 0 ? headers : null;
}

/** The JSON of an event's data. JSON.stringify would write NaN and Infinity as null, and skip what it does not know. */
export function toJson(data: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(data);
  } catch (error) {
    throw new TypeError(`the event's data cannot be written as JSON: ${(error as Error).message}`, { cause: error });
  }
  if (json === undefined) {
    throw new TypeError(`the event's data cannot be written as JSON: it is ${typeof data}; publish null or an object`);
  }
  // Only then can a number have been lost; the second pass is rare.
  if (json.includes("null")) JSON.stringify(data, refuseLostNumbers);
  return json;
}

function refuseLostNumbers(key: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(
      `the event's data cannot be written as JSON: ${key || "it"} is ${value}; JSON has no such number`,
    );
  }
  return value;
}

import { type Delay, toMs } from "./delay";
import { failure, fromNative } from "./error";
import type { Inbox, MemoryInbox } from "./inbox";
import { type NativeOptions, native } from "./native";
import type { Redact } from "./outcome";
import { RetryPolicy } from "./policy";
import type { StandardSchema } from "./schema";

/** How the events of a key keep their order. */
export interface OrderedOptions {
  /** Whether the later events of a key wait behind one that is to be retried (default), or pass it. */
  onRetry?: "wait" | "pass" | undefined;
  /** Whether a key stops at a dead event until that is replayed or discarded (default), or goes on without it. */
  onDead?: "park" | "skip" | undefined;
  /**
   * RabbitMQ: a key whose head is to be retried within this time is held in memory; after a longer delay it comes back
   * from a queue of its own (default 60 s, at most 5 min).
   */
  holdMax?: Delay | undefined;
  /**
   * RabbitMQ: most keys that are parked at a time (default 1000). Further ones are held, until the prefetch is used
   * up and fetching stops; `health()` says so.
   */
  maxParked?: number | undefined;
  /**
   * Divides the keys into this many partitions, so that up to as many processes work at a time (default 1, at most
   * 64). Only RabbitMQ needs it, and changes the number only while nothing is left in the partitions and no other
   * process uses them; else starting fails with `SUBSCRIPTION_CONFLICT`.
   */
  partitions?: number | undefined;
}

/** Everything that a subscription can be told. */
export interface SubscriptionOptions<T = unknown> {
  /** Most retries of one event, those that the handler asks for included (default 0). Not beside `retry`. */
  maxRetries?: number | undefined;
  /** Retries errors by this policy. Without one an error dead-letters. */
  retry?: RetryPolicy | undefined;
  /** Handlers that run at once (default 1). */
  concurrency?: number | undefined;
  /** Most events fetched and not settled (default 2 × concurrency, at least 16). */
  prefetch?: number | undefined;
  /** The events of a key are first handled in the order the transport accepted them, one at a time. */
  ordered?: boolean | OrderedOptions | undefined;
  /** A handler that runs longer has failed with type `Timeout`; `context.signal` tells it. Default: no limit. */
  timeout?: Delay | undefined;
  /** What the data must be: a zod, valibot, arktype or other Standard Schema. What does not fit is a dead letter. */
  schema?: StandardSchema<T> | undefined;
  /** Whether events that were given up on are kept (default) or dropped, counted. */
  deadLetter?: boolean | undefined;
  /** Where the binding keys apply. Default: `domain-events`. */
  exchange?: string | undefined;
  /** Whether dead letters keep the error's stack (default yes). */
  captureStack?: boolean | undefined;
  /** Rewrites error messages and stacks before they are kept or logged. */
  redact?: Redact | undefined;
  /** Longest time that a fetched event waits for a handler before it goes back (default 20 min). */
  maxHold?: Delay | undefined;
  /** Deliveries without an outcome after which an event is run alone (default 20). */
  maxDeliveries?: number | undefined;
  /** SQL: how long a claim lasts when its process dies (default 30 s). */
  lease?: Delay | undefined;
  /**
   * The handler runs inside a transaction, `(event, tx, context)`, that also remembers the event: effects happen once.
   * With a {@link MemoryInbox} it stays `(event, context)`.
   */
  // biome-ignore lint/suspicious/noExplicitAny: whatever the program's transactions are
  inbox?: Inbox<any> | MemoryInbox | undefined;
  /** RabbitMQ: kind of the queue (default `quorum`). */
  queueType?: "quorum" | "classic" | undefined;
  /** RabbitMQ: declares exactly what `domain-event-broker` 3.0.2 declares, so that both can use the queue. */
  compat?: boolean | undefined;
  /** RabbitMQ: whether the queue outlives the broker (default). `false` makes it a classic queue. */
  durable?: boolean | undefined;
  /** RabbitMQ: only this connection may use the queue. Makes it a classic queue. */
  exclusive?: boolean | undefined;
  /** RabbitMQ: the queue goes with its last consumer. Makes it a classic queue. */
  autoDelete?: boolean | undefined;
}

/** Options that are known; a misspelt one must not be passed over in silence. */
const KNOWN = new Set([
  ...["maxRetries", "retry", "concurrency", "prefetch", "ordered", "timeout", "schema", "deadLetter", "exchange"],
  ...["captureStack", "redact", "maxHold", "maxDeliveries", "lease", "queueType", "compat", "durable", "exclusive"],
  ...["autoDelete", "name", "signal", "inbox"],
]);

/** The options as the engine wants them; throws what is wrong with them. */
export function nativeOptions(
  name: string,
  bindingKeys: string | readonly string[],
  options: SubscriptionOptions<never>,
): NativeOptions {
  for (const option of Object.keys(options)) {
    if (!KNOWN.has(option)) throw unknownOption(option);
  }
  if (typeof name !== "string") {
    throw failure("INVALID_NAME", "the subscription has no name", {
      field: "name",
      value: name,
      remedy: 'e.g. "billing"',
    });
  }
  const { ordered, schema, retry } = options;
  const order: OrderedOptions = typeof ordered === "object" ? ordered : {};
  if (schema !== undefined && (schema as StandardSchema)?.["~standard"]?.version !== 1) {
    throw new TypeError("schema must be a Standard Schema (zod, valibot, arktype, …)");
  }
  if (retry !== undefined && !(retry instanceof RetryPolicy)) {
    throw new TypeError("retry must be a RetryPolicy: RetryPolicy.fixed({ … }) or RetryPolicy.exponential({ … })");
  }
  const native_: NativeOptions = {
    name,
    bindingKeys: typeof bindingKeys === "string" ? [bindingKeys] : [...bindingKeys],
    exchange: options.exchange,
    maxRetries: count("maxRetries", options.maxRetries, 0),
    retry: retry?.native,
    concurrency: count("concurrency", options.concurrency, 1),
    prefetch: count("prefetch", options.prefetch, 1),
    ordered: ordered !== undefined && ordered !== false,
    onRetry: order.onRetry,
    onDead: order.onDead,
    holdMaxMs: millis("holdMax", order.holdMax),
    maxParked: count("maxParked", order.maxParked, 1),
    partitions: count("partitions", order.partitions, 1),
    deadLetter: options.deadLetter,
    queueType: options.queueType,
    compat: options.compat,
    durable: options.durable,
    exclusive: options.exclusive,
    autoDelete: options.autoDelete,
    leaseMs: millis("lease", options.lease),
    maxHoldMs: millis("maxHold", options.maxHold),
    maxDeliveries: count("maxDeliveries", options.maxDeliveries, 1),
    captureStack: options.captureStack,
    timeoutMs: millis("timeout", options.timeout),
  };
  try {
    native().checkSubscription(native_);
  } catch (error) {
    throw fromNative(error);
  }
  return native_;
}

function unknownOption(option: string): Error {
  const lower = option.toLowerCase().replace(/ms$/, "");
  const meant = [...KNOWN].find((known) => known.toLowerCase() === lower);
  const remedy = meant === undefined ? `the options are ${[...KNOWN].join(", ")}` : `did you mean ${meant}?`;
  return failure("INVALID_OPTION", "there is no such option", { field: "options", value: option, remedy });
}

function millis(what: string, delay: Delay | undefined): number | undefined {
  return delay === undefined ? undefined : toMs(delay, what);
}

function count(field: string, value: number | undefined, least: number): number | undefined {
  if (value === undefined || (Number.isInteger(value) && value >= least && value <= 0xffffffff)) return value;
  throw failure("INVALID_OPTION", "this is not a count", {
    field,
    value,
    remedy: `use a whole number of at least ${least}`,
  });
}

// The addon, as `bindings/node` has it, loaded when the first object needs it: importing the package costs nothing.

import { loadAddon } from "./addon";

/** A flat array: number, routing key, id, seconds, object id, retries, headers, data, number, … */
export type RawBatch = (number | string | null | Record<string, HeaderValue>)[];

/** Value of a header. */
export type HeaderValue =
  | null
  | boolean
  | number
  | string
  | Date
  | Uint8Array
  | HeaderValue[]
  | { [name: string]: HeaderValue };

export interface NativeBridge {
  drain(): unknown[];
  end(): void;
}

export interface NativeBroker {
  connect(op: number, url: string | undefined): void;
  ping(op: number): void;
  subscriptions(op: number): void;
  deleteSubscription(op: number, name: string): void;
  deadLetters(op: number, subscription: string, filter: NativeFilter, limit: number): void;
  close(op: number): void;
  metrics(): string;
  capabilities(): string;
  advance(op: number, ms: number): void;
  nextDue(op: number): void;
  isIdle(op: number): void;
}

export interface NativePublishExtra {
  id?: string | undefined;
  timestamp?: number | undefined;
  headers?: Record<string, unknown> | undefined;
  delayMs?: number | undefined;
  deliverAt?: number | undefined;
  requireRoute?: boolean | undefined;
  exchange?: string | undefined;
  timeoutMs?: number | undefined;
}

export interface NativePublisher {
  open(
    op: number,
    settings: {
      exchange?: string | undefined;
      publishTimeoutMs?: number | undefined;
      maxPayload?: number | undefined;
    },
  ): void;
  publish(ops: Uint32Array, text: string): void;
  close(): void;
}

export interface NativePolicy {
  maxRetries: number;
  initialMs: number;
  factor?: number | undefined;
  maxMs?: number | undefined;
  jitter?: number | undefined;
  retryOn?: string[] | undefined;
  giveUpOn?: string[] | undefined;
  maxAgeMs?: number | undefined;
}

export interface NativeOptions {
  name: string;
  bindingKeys: string[];
  exchange?: string | undefined;
  maxRetries?: number | undefined;
  retry?: NativePolicy | undefined;
  concurrency?: number | undefined;
  prefetch?: number | undefined;
  ordered?: boolean | undefined;
  onRetry?: string | undefined;
  onDead?: string | undefined;
  holdMaxMs?: number | undefined;
  maxParked?: number | undefined;
  partitions?: number | undefined;
  deadLetter?: boolean | undefined;
  queueType?: string | undefined;
  compat?: boolean | undefined;
  durable?: boolean | undefined;
  exclusive?: boolean | undefined;
  autoDelete?: boolean | undefined;
  leaseMs?: number | undefined;
  maxHoldMs?: number | undefined;
  maxDeliveries?: number | undefined;
  captureStack?: boolean | undefined;
  timeoutMs?: number | undefined;
}

export interface NativeOutcome {
  kind: "ok" | "retry" | "fail" | "timeout" | "dead-letter" | "discard" | "release";
  afterMs?: number | undefined;
  reason?: string | undefined;
  message?: string | undefined;
  stack?: string | undefined;
  errorTypes?: string[] | undefined;
}

export interface NativeRaised {
  kind: "retry" | "dead-letter" | "discard" | "store-failed" | "other";
  afterMs?: number | undefined;
  reason?: string | undefined;
  message?: string | undefined;
}

export interface NativeSubscription {
  open(op: number, options: NativeOptions): void;
  next(op: number, max: number): void;
  tryNext(max: number): RawBatch | null;
  settleOk(numbers: Uint32Array): void;
  settle(number: number, outcome: NativeOutcome): void;
  settleAndWait(op: number, number: number, outcome: NativeOutcome): void;
  putBack(numbers: Uint32Array): void;
  handled(count: number, ms: number): void;
  pause(op: number): void;
  resume(op: number): void;
  close(op: number, timeoutMs: number): void;
  health(): string | null;
}

export interface NativeFilter {
  ids?: string[] | undefined;
  bindingKeys?: string[] | undefined;
  reason?: string | undefined;
  errorType?: string | undefined;
  tenant?: string | undefined;
  failedAfter?: number | undefined;
  failedBefore?: number | undefined;
}

export interface NativeReplay {
  run(
    op: number,
    subscription: string,
    settings: {
      filter: NativeFilter;
      limit?: number | undefined;
      rate?: number | undefined;
      dryRun?: boolean | undefined;
      asks: boolean;
    },
  ): void;
  decide(op: number, actions: string[]): void;
  giveUp(): void;
}

export interface NativeVerified {
  tag: string;
  subject?: string | undefined;
}

export interface NativeCatalog {
  publish(op: number, request: string, verified: NativeVerified | undefined): void;
  call(op: number, operation: string, request: string): void;
  topic(op: number, broker: NativeBroker, request: string, verified: NativeVerified | undefined): void;
  close(op: number): void;
}

export interface NativeCatalogSettings {
  declared?: string | undefined;
  path?: string | undefined;
  product?: string | undefined;
  env?: string | undefined;
}

export interface NativeOutboxRow {
  routingKey: string;
  data: string;
  id: string;
  timestamp: number;
  domainObjectId?: string | undefined;
  headers?: string | undefined;
  availableAt?: number | undefined;
  exchange?: string | undefined;
}

export interface NativeRendering {
  dialect: string;
  style: string;
  table: string;
  notify: boolean;
  serialize: boolean;
  maxPayload: number;
}

export interface NativeStatement {
  sql: string;
  params: (null | number | string | Uint8Array)[];
}

export interface NativeOutboxStore {
  connect(op: number, url: string, table: string): void;
  call(op: number, operation: string, request: string): void;
  close(op: number): void;
}

export interface NativeOutboxRelay {
  start(op: number, url: string | undefined, settings: string): void;
  stop(op: number): void;
  health(): string;
  metrics(): string;
}

export interface NativeInboxRest {
  failed(): number;
  worked(): void;
}

export interface NativeMemoryClaim {
  renew(): boolean;
  complete(): boolean;
  release(): void;
}

export interface NativeMemoryClaims {
  claim(subscription: string, row: NativeOutboxRow): NativeMemoryClaim | null;
  turn(subscription: string, row: NativeOutboxRow): NativeMemoryClaim | number | null;
}

export interface Native {
  OutboxStore: new (bridge: NativeBridge) => NativeOutboxStore;
  OutboxRelay: new (store: NativeOutboxStore) => NativeOutboxRelay;
  outboxInsert(how: NativeRendering, rows: NativeOutboxRow[]): NativeStatement[];
  inboxClaim(how: NativeRendering, subscription: string, row: NativeOutboxRow): NativeStatement;
  inboxForget(how: NativeRendering, ageMs: number, limit: number): NativeStatement;
  InboxRest: new () => NativeInboxRest;
  MemoryClaims: new (keepMs: number, leaseMs: number) => NativeMemoryClaims;
  outboxSql(dialect: string, table: string, inbox: boolean): string;
  Bridge: new (wake: () => void) => NativeBridge;
  Broker: new (bridge: NativeBridge, virtualTime: boolean) => NativeBroker;
  Catalog: new (bridge: NativeBridge, settings: NativeCatalogSettings) => NativeCatalog;
  Publisher: new (broker: NativeBroker) => NativePublisher;
  Subscription: new (broker: NativeBroker) => NativeSubscription;
  Replay: new (broker: NativeBroker) => NativeReplay;
  checkSubscription(options: NativeOptions): void;
  asked(errors: NativeRaised[]): NativeOutcome | null;
  newId(): string;
  cli(args: string[]): number;
}

let loaded: Native | undefined;

/** The addon. The first call loads it. */
export function native(): Native {
  loaded ??= loadAddon() as Native;
  return loaded;
}

// Which dead letters are meant, and what is known of each.

import type { Abortable } from "./abort";
import { DomainEvent } from "./event";
import type { HeaderValue, NativeFilter } from "./native";

/** Chooses dead letters: all conditions must hold. */
export interface DeadLetterFilter {
  /** The events with these ids. */
  ids?: readonly string[] | undefined;
  /** Events whose routing key matches one of these patterns. */
  bindingKeys?: readonly string[] | undefined;
  /** Given up on for this reason. */
  reason?: string | undefined;
  /** Whose last error had this type. */
  errorType?: string | undefined;
  tenant?: string | undefined;
  /** Failed last at or after this time. */
  failedAfter?: Date | undefined;
  /** Failed last before this time. */
  failedBefore?: Date | undefined;
}

/** Options of {@link deadLetters}. */
export interface DeadLettersOptions extends DeadLetterFilter, Abortable {
  /** At most so many; default 100. */
  limit?: number | undefined;
}

/** An event that a subscription gave up on, with its story. A copy. */
export interface DeadLetterEntry {
  id: string;
  routingKey: string;
  /** Why it was given up on. */
  reason: string;
  /** Type of the last error. */
  errorType: string | null;
  /** Message of the last error, at most 2 KiB. */
  error: string | null;
  /** Stack of the last error, at most 8 KiB. */
  stack: string | null;
  /** How often it was handled in all; 0 if that is not known. */
  attempts: number;
  firstFailedAt: Date | null;
  failedAt: Date | null;
  /** It is the head of an ordered key, which waits until this is replayed or discarded. */
  parked: boolean;
  headers: Record<string, HeaderValue>;
  /** The body as it travelled. */
  body: string;
  /** The event; `null` if the body is none. */
  event: DomainEvent | null;
}

export function filterOf(filter: DeadLetterFilter): NativeFilter {
  return {
    ids: filter.ids && [...filter.ids],
    bindingKeys: filter.bindingKeys && [...filter.bindingKeys],
    reason: filter.reason,
    errorType: filter.errorType,
    tenant: filter.tenant,
    failedAfter: seconds(filter.failedAfter),
    failedBefore: seconds(filter.failedBefore),
  };
}

function seconds(date: Date | undefined): number | undefined {
  return date === undefined ? undefined : date.getTime() / 1000;
}

interface RawEntry extends Omit<DeadLetterEntry, "event" | "firstFailedAt" | "failedAt"> {
  firstFailedAt: number | null;
  failedAt: number | null;
  data: string | null;
  domainObjectId: string | null;
  timestamp: number | null;
}

/** A page of dead letters from the engine's JSON. */
export function entries(json: string): DeadLetterEntry[] {
  return (JSON.parse(json) as RawEntry[]).map(({ data, domainObjectId, timestamp, ...entry }) => ({
    ...entry,
    firstFailedAt: date(entry.firstFailedAt),
    failedAt: date(entry.failedAt),
    event:
      data === null
        ? null
        : DomainEvent.received({
            routingKey: entry.routingKey,
            id: entry.id,
            seconds: timestamp ?? 0,
            domainObjectId,
            retries: 0,
            headers: entry.headers,
            json: data,
          }),
  }));
}

function date(at: number | null): Date | null {
  return at === null ? null : new Date(at * 1000);
}

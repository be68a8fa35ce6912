/** @internal */
export interface TidingsErrorDetails {
  code: string;
  message: string;
  text: string;
  field: string | null;
  value: string | null;
  remedy: string | null;
  retryable: boolean;
  outcomeUnknown: boolean;
  causes: string[];
}

/**
 * Why an operation failed. Every code has a class of its own; `code` is the same in every language.
 *
 * The message is one line: what happened, the field and value at fault, the remedy. It never holds a password.
 */
export class TidingsError extends Error {
  /** The stable code, e.g. `"INVALID_ROUTING_KEY"`. */
  readonly code: string;
  /** The field or option at fault. */
  readonly field: string | undefined;
  /** The value that it had, shortened. */
  readonly value: string | undefined;
  /** What to do about it. */
  readonly remedy: string | undefined;
  /** Whether the same call can succeed later without being changed. */
  readonly retryable: boolean;
  /** Whether the operation may have taken effect although it failed. */
  readonly outcomeUnknown: boolean;

  /** @internal */
  constructor(details: TidingsErrorDetails) {
    const cause = details.causes.length > 0 ? new Error(details.causes.join(": ")) : undefined;
    super(details.text, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = details.code;
    this.field = details.field ?? undefined;
    this.value = details.value ?? undefined;
    this.remedy = details.remedy ?? undefined;
    this.retryable = details.retryable;
    this.outcomeUnknown = details.outcomeUnknown;
  }
}

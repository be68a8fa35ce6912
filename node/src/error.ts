import * as classes from "./error-classes";
import { TidingsError, type TidingsErrorDetails } from "./tidings-error";

/** The class of a code, or the base for a code that this version does not know. */
function classOf(code: string): new (details: TidingsErrorDetails) => TidingsError {
  const words = code.split("_").map((word) => word.slice(0, 1) + word.slice(1).toLowerCase());
  const known = classes as Record<string, new (details: TidingsErrorDetails) => TidingsError>;
  return known[`${words.join("")}Error`] ?? TidingsError;
}

/** What the engine says went wrong, as the class of its code. Anything else is passed through. */
export function fromNative(error: unknown): unknown {
  const text = typeof error === "string" ? error : error instanceof Error ? error.message : undefined;
  if (text === undefined || !text.startsWith("{")) return error;
  let details: TidingsErrorDetails;
  try {
    details = JSON.parse(text) as TidingsErrorDetails;
  } catch {
    return error;
  }
  return new (classOf(details.code))(details);
}

/** Runs what calls the engine at once, and throws what it says as the class of its code. */
export function typed<R>(run: () => R): R {
  try {
    return run();
  } catch (error) {
    throw fromNative(error);
  }
}

/** An error of the table that the TypeScript side raises itself. */
export function failure(
  code: string,
  message: string,
  details: { field?: string; value?: unknown; remedy?: string; cause?: unknown } = {},
): TidingsError {
  const value = details.value === undefined ? undefined : String(details.value).slice(0, 120);
  const where = details.field === undefined ? "" : ` (${details.field} = ${JSON.stringify(value ?? "")})`;
  const remedy = details.remedy === undefined ? "" : `; ${details.remedy}`;
  const error = new (classOf(code))({
    code,
    message,
    text: `${code}: ${message}${where}${remedy}`,
    field: details.field ?? null,
    value: value ?? null,
    remedy: details.remedy ?? null,
    retryable: false,
    outcomeUnknown: false,
    causes: [],
  });
  if (details.cause !== undefined) Object.defineProperty(error, "cause", { value: details.cause, configurable: true });
  return error;
}

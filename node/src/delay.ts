/** A length of time with its unit: a bare number would leave open whether it is seconds or milliseconds. */
export type Delay = { seconds: number } | { ms: number };

/** Milliseconds of a {@link Delay}; a TypeError says what to write instead. */
export function toMs(delay: Delay, what: string): number {
  if (typeof delay === "object" && delay !== null) {
    const { seconds, ms } = delay as { seconds?: unknown; ms?: unknown };
    if (typeof ms === "number" && seconds === undefined) return inRange(ms, what);
    if (typeof seconds === "number" && ms === undefined) return inRange(seconds * 1000, what);
  }
  const shown = typeof delay === "number" ? `the bare number ${delay}` : String(delay);
  throw new TypeError(`${what} needs its unit: { seconds: 5 } or { ms: 500 }, not ${shown}`);
}

function inRange(ms: number, what: string): number {
  if (!Number.isFinite(ms) || ms < 0) throw new TypeError(`${what} must be a number of at least 0, not ${ms}`);
  return ms;
}

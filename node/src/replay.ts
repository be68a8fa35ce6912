import { type Abortable, abortable, throwIfAborted } from "./abort";
import { bridge } from "./bridge";
import { type Broker, brokerOf, defaultBroker } from "./broker";
import { native } from "./native";
import {
  type DeadLetterEntry,
  type DeadLetterFilter,
  type DeadLettersOptions,
  entries,
  filterOf,
} from "./replay-filter";

/** What is done with a dead letter: back into the subscription, it stays, or it is removed for good. */
export type ReplayAction = "retry" | "leave" | "discard";

/** Says what is done with a dead letter. */
export type Decide = (dead: DeadLetterEntry) => ReplayAction | Promise<ReplayAction>;

/** What a replay did. */
export interface ReplayReport {
  /** Dead letters looked at. */
  seen: number;
  /** Of those, chosen by the filter. */
  chosen: number;
  /** Put back into the subscription (with `dryRun`: would have been). */
  replayed: number;
  /** Removed (with `dryRun`: would have been). */
  discarded: number;
  /** Chosen and left. */
  left: number;
  /** Dead letters that are still there of those that were there at the start. */
  remaining: number;
}

/** Which broker a function means; without one, that of the environment. */
export interface OnBroker {
  broker?: Broker | string | undefined;
}

/** Options of {@link replayAll}. */
export interface ReplayOptions extends OnBroker, DeadLetterFilter, Abortable {
  /** Asked about each chosen dead letter; without it all are put back. */
  decide?: Decide | undefined;
  /** At most so many of the chosen ones. */
  limit?: number | undefined;
  /** At most so many replays and removals per second. */
  rate?: number | undefined;
  /** Only counts what would be done. */
  dryRun?: boolean | undefined;
}

/**
 * Puts the dead letters of a subscription back, oldest first; each is confirmed there before it is removed here.
 *
 * A replay that was interrupted is run again. Aborting ends it at the next page; what was replayed stays replayed.
 *
 * ```ts
 * await replayAll("billing", { reason: "no-address", dryRun: true });
 * await replayAll("billing", { bindingKeys: ["order.*"], rate: 100 });
 * await replayAll("billing", { decide: (dead) => (dead.attempts > 9 ? "discard" : "retry") });
 * ```
 */
export function replayAll(subscription: string, options: ReplayOptions = {}): Promise<ReplayReport> {
  return on(options.broker, (broker) => replay(broker, subscription, options));
}

/**
 * Takes the oldest dead letter of a subscription and puts it back, or does what `decide` says.
 *
 * @returns how many others were there.
 */
export async function replayEvent(
  subscription: string,
  options: Omit<ReplayOptions, "limit" | "dryRun" | "rate"> = {},
): Promise<number> {
  const report = await replayAll(subscription, { ...options, limit: 1 });
  return Math.max(0, report.remaining + report.replayed + report.discarded - report.chosen);
}

/** The first dead letters of a subscription that are meant, oldest first. Looking changes nothing. */
export function deadLetters(
  subscription: string,
  options: DeadLettersOptions & OnBroker = {},
): Promise<DeadLetterEntry[]> {
  const { broker, ...rest } = options;
  return on(broker, (reached) => reached.deadLetters(subscription, rest));
}

/** Runs on the broker that is meant; one that was made for a URL is closed again. */
async function on<T>(target: Broker | string | undefined, run: (broker: Broker) => Promise<T>): Promise<T> {
  if (target === undefined) return run(defaultBroker());
  const { broker, owned } = brokerOf(target);
  try {
    return await run(broker);
  } finally {
    if (owned) await broker.close();
  }
}

async function replay(broker: Broker, subscription: string, options: ReplayOptions): Promise<ReplayReport> {
  throwIfAborted(options.signal);
  const { decide, limit, rate, dryRun, signal } = options;
  await broker.ready();
  const { Replay } = native();
  const walk = new Replay(broker.native);
  const settings = {
    filter: filterOf(options),
    limit,
    rate,
    dryRun,
    asks: decide !== undefined || signal !== undefined,
  };
  const giveUp = () => walk.giveUp();
  const call = (start: (op: number) => void) => abortable(bridge().call<string>(start), signal, giveUp);
  let answer = await call((op) => walk.run(op, subscription, settings));
  // A page is an array, the report an object.
  while (answer.startsWith("[")) {
    const actions: ReplayAction[] = [];
    try {
      for (const dead of entries(answer)) actions.push(decide === undefined ? "retry" : checked(await decide(dead)));
    } catch (error) {
      walk.giveUp();
      throw error;
    }
    throwIfAborted(signal);
    answer = await call((op) => walk.decide(op, actions));
  }
  return JSON.parse(answer) as ReplayReport;
}

function checked(action: ReplayAction): ReplayAction {
  if (action === "retry" || action === "leave" || action === "discard") return action;
  throw new TypeError(`decide must return "retry", "leave" or "discard", not ${String(action)}`);
}

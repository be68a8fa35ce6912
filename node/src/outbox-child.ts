// The process that works on a SQLite file for another one: outbox-store starts it. Reads requests as lines of JSON and
// answers them; ends with its standard input, relays handed over.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { NativeStore, type Store, type StoreRelay } from "./outbox-store";
import { TidingsError } from "./tidings-error";

/** Milliseconds between two tries to start a relay again. */
const AGAIN = 1000;

interface Request {
  id: number;
  do: "call" | "relay" | "health" | "metrics" | "stop";
  operation: string;
  request: string;
  relay: number;
  url?: string;
  settings: string;
  again?: boolean;
}

const relays = new Map<number, StoreRelay>();
let ended = false;

async function start(store: Store, request: Request): Promise<string> {
  for (;;) {
    try {
      relays.set(request.relay, await store.relay(request.url, request.settings));
      return "";
    } catch (error) {
      // One that ran before is started until it runs again: its broker may be away for a while.
      if (request.again !== true || ended) throw error;
      await sleep(AGAIN);
    }
  }
}

async function answer(store: Store, request: Request): Promise<string> {
  if (request.do === "call") return store.call(request.operation, request.request);
  if (request.do === "relay") return start(store, request);
  const relay = relays.get(request.relay);
  if (request.do === "health") return (await relay?.health()) ?? "{}";
  if (request.do === "metrics") return (await relay?.metrics()) ?? "{}";
  relays.delete(request.relay);
  await relay?.stop();
  return "";
}

/** As the addon writes errors. */
function asJson(error: unknown): string {
  const known = error instanceof TidingsError ? error : undefined;
  const message = error instanceof Error ? error.message : String(error);
  return JSON.stringify({
    code: known?.code ?? "INTERNAL",
    message,
    text: message,
    field: known?.field ?? null,
    value: known?.value ?? null,
    remedy: known?.remedy ?? null,
    retryable: known?.retryable ?? false,
    outcomeUnknown: known?.outcomeUnknown ?? false,
    causes: [],
  });
}

function say(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

// Ctrl-C is meant for the program, which ends this process in order.
process.on("SIGINT", () => {});

async function main(): Promise<void> {
  let store: Store | undefined;
  for await (const line of createInterface({ input: process.stdin })) {
    if (store === undefined) {
      const first = JSON.parse(line) as { store: string; table: string };
      try {
        store = await NativeStore.connect(first.store, first.table);
      } catch (error) {
        say({ id: 0, error: asJson(error) });
        return;
      }
      say({ id: 0, ok: "" });
      continue;
    }
    const request = JSON.parse(line) as Request;
    void answer(store, request).then(
      (ok) => say({ id: request.id, ok }),
      (error) => say({ id: request.id, error: asJson(error) }),
    );
  }
  ended = true;
  await Promise.all([...relays.values()].map((relay) => relay.stop()));
  await store?.close();
}

void main();

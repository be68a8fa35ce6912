// A TypeScript program that uses the package, compiled under `strict`, with and without the types of Node.

import {
  type Broker,
  type DeadLetterEntry,
  DomainEvent,
  deadLetters,
  type Handler,
  InvalidRoutingKeyError,
  Publisher,
  Retry,
  RetryPolicy,
  replayAll,
  Subscriber,
  TidingsError,
} from "tidings";
import { TestBroker } from "tidings/testing";

interface Order {
  id: number;
}

export async function program(): Promise<string[]> {
  const seen: string[] = [];
  const broker: Broker = new TestBroker({ logger: false });
  const subscriber = new Subscriber(broker);
  const bill: Handler<Order> = async (event, { signal }) => {
    const id: number = event.data.id;
    if (signal.aborted || id === 2) throw new Retry({ seconds: 5 }, "later");
    seen.push(`billed ${id}`);
  };
  const retry = RetryPolicy.exponential({
    maxRetries: 3,
    initial: { ms: 10 },
    max: { seconds: 60 },
    retryOn: [TypeError, "Flaky"],
  });
  subscriber.handle("order.*", { name: "billing", retry, concurrency: 4, ordered: { onDead: "skip" } }, bill);
  const running = await subscriber.start();
  const publisher = new Publisher(broker);
  const receipt = await publisher.publish("order.placed", { id: 1 } satisfies Order, { domainObjectId: "1" });
  await publisher.delay({ seconds: 1 }).publish(new DomainEvent<Order>("order.placed", { id: 3 }));
  if (broker instanceof TestBroker) await broker.advance(1000);
  try {
    await publisher.publish("order.*", null);
  } catch (error) {
    if (error instanceof InvalidRoutingKeyError && error instanceof TidingsError) seen.push(error.code);
  }
  const dead: DeadLetterEntry[] = await deadLetters("billing", { broker, limit: 1 });
  const report = await replayAll("billing", { broker, decide: (one) => (one.attempts > 9 ? "discard" : "leave") });
  seen.push(`${receipt.routed} ${dead.length} ${report.seen}`);
  await running.stop();
  await broker.close();
  return seen;
}

// @ts-expect-error a bare number has no unit
export const wrong = () => new Retry(5);
// @ts-expect-error a misspelt option
export const misspelt = (subscriber: Subscriber) => subscriber.handle("a", { name: "x", maxRetry: 1 }, () => {});

// The event that everybody publishes: built and encoded anew each time, 225–252 bytes of JSON.

import { randomUUID } from "node:crypto";

export const ROUTING_KEY = "user.registered";

/** Data of event number `n`. */
export const payload = (n) => ({
  user_id: n,
  name: `User Number ${n}`,
  email: `user-${n}@example.com`,
  made: Math.round(performance.now() * 1e6),
});

/** The five keys as hand-written code has them: id and body. */
export function byHand(routing_key, data, domain_object_id) {
  const uuid_string = randomUUID();
  const timestamp = Date.now() / 1000;
  const body = JSON.stringify({ routing_key, data, domain_object_id, uuid_string, timestamp });
  return { id: uuid_string, body: Buffer.from(body) };
}

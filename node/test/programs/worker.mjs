// A subscriber as a program: BROKER, NAME, EXCHANGE; says what it does, one line each.

import { Subscriber } from "../../dist/index.mjs";

const { BROKER, NAME = "worker", EXCHANGE = "domain-events", HANDLER = "ok", MS = "0", HEARTBEAT } = process.env;
const url = HEARTBEAT === undefined ? BROKER : `${BROKER}?heartbeat=${HEARTBEAT}`;
const subscriber = new Subscriber(url, { drainTimeout: { seconds: 10 } });
subscriber.handle("job.*", { name: NAME, exchange: EXCHANGE, concurrency: 4 }, async (event) => {
  console.log(`began ${event.data}`);
  if (HANDLER === "sleep") await new Promise((resolve) => setTimeout(resolve, Number(MS)));
  if (HANDLER === "block" && event.data === 0) {
    const until = Date.now() + Number(MS);
    while (Date.now() < until);
  }
  if (HANDLER === "crash" && event.data === "crash") process.exit(3);
  console.log(`ended ${event.data}`);
});
const running = await subscriber.start({ handleSignals: true });
subscriber.on("stopped", (unfinished) => console.log(`stopped ${unfinished}`));
console.log(`started ${process.pid}`);
if (process.env.STOP_AFTER !== undefined) {
  setTimeout(() => running.stop().then(() => console.log("closed")), Number(process.env.STOP_AFTER));
}

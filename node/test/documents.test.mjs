// The JavaScript of the README and of the guide runs as it is printed.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { folder } from "./support.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TIDINGS_")));

/** The blocks of a page in this language. */
function blocks(page, language) {
  const text = readFileSync(join(root, "..", page), "utf8");
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))].map(([, code]) => code);
}

/** A folder where programs find the package. */
function project(t) {
  const cwd = folder(t);
  mkdirSync(join(cwd, "node_modules"));
  symlinkSync(root, join(cwd, "node_modules/tidings"));
  symlinkSync(join(root, "node_modules/zod"), join(cwd, "node_modules/zod"));
  return cwd;
}

test("the README's program runs until it is ended", async (t) => {
  const [program] = blocks("README.md", "js");
  const cwd = project(t);
  writeFileSync(join(cwd, "readme.mjs"), program);
  const running = spawn(process.execPath, ["readme.mjs"], { cwd, env, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => running.kill("SIGKILL"));
  // After the retry that it asks for.
  const [line] = await once(createInterface(running.stdout), "line");
  assert.equal(line, "billing 7");
});

test("the guide's code runs", async (t) => {
  const [publish, handle, iterate, testing] = blocks("core/docs/node.md", "ts");
  const cwd = project(t);
  // What the page leaves to the reader.
  const program = `
    import { Broker, DomainEvent, Publisher, RetryPolicy, Subscriber } from "tidings";
    import { TestBroker } from "tidings/testing";
    import { z } from "zod";

    const broker = new Broker("sqlite:guide.db", { logger: false });
    const events = [new DomainEvent("order.placed", { id: 7 }), new DomainEvent("order.paid", { id: 7 })];
    const Order = z.object({ id: z.number() });
    const retry = RetryPolicy.fixed({ maxRetries: 1, delay: { ms: 1 } });
    const tooEarly = () => false;
    {
      ${publish.replace('"amqp://guest:guest@localhost"', "broker")}
      console.log(receipt.routed);
    }
    {
      ${handle.replace("…", "")}
      await running.stop();
    }
    {
      const collecting = new Subscriber(broker);
      collecting.handle("#", { name: "audit" }, async () => {});
      await (await collecting.start()).stop();
      await new Publisher(broker).publishBatch(events);

      const subscriber = new Subscriber(broker);
      const { signal } = new AbortController();
      const seen = [];
      ${iterate.replace("{\n", "{\n if (seen.push(event.routingKey) === events.length) break;\n")}
      console.log(seen.join(" "));
    }
    {
      ${testing.replace(/^import.*$/m, "").replace("…", 'subscriber.handle("order.*", { name: "billing" }, async () => {}); await subscriber.start();')}
    }
    console.log("done");
    process.exit();
  `;
  writeFileSync(join(cwd, "guide.mjs"), program);
  const { stdout } = await promisify(execFile)(process.execPath, ["guide.mjs"], { cwd, env, timeout: 60_000 });
  assert.equal(stdout, "false\norder.placed order.paid\ndone\n");
});

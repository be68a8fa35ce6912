// Writes a hundred events with a driver, commits them or not, says so and waits to be killed: `writer.mjs DRIVER TABLE FOLDER yes|no`.

import { DomainEvent, Outbox } from "../../dist/index.mjs";
import { drivers } from "../outbox-drivers.mjs";

const [name, table, folder, commits] = process.argv.slice(2);
const { make } = drivers.find(({ make }) => make.driver === name);
const database = new make(folder);
const { connection, end } = await database.begin();
const events = Array.from({ length: 100 }, (_, n) => new DomainEvent("a.b", { n }));
await new Outbox(undefined, { table }).add(connection, events);
if (commits === "yes") await end(true);
process.stdout.write("written\n");
process.stdin.resume();

#!/usr/bin/env node
// `npx tidings …`: the whole command. `run` is here, because its workers are Node's; everything else is the engine's.

import { runCommand } from "./run-command";
import { tidings } from "./tidings";

const [command, ...rest] = process.argv.slice(2);
if (command === "run") runCommand(rest);
else process.exitCode = tidings(process.argv.slice(2));

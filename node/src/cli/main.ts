#!/usr/bin/env node
// `npx tidings run ./worker.js --processes N`: as many processes as asked for, kept running.

import { run } from "./run";

const USAGE = `usage: tidings run <module> [--processes N] [-- arguments of the module]

Runs the module N times (default 1). A process that crashes is started again, at most after 30 s;
at SIGINT or SIGTERM all get SIGTERM, drain, and this ends when they have.`;

const [command, ...rest] = process.argv.slice(2);
if (command === "run") {
  const split = rest.indexOf("--");
  const own = split < 0 ? rest : rest.slice(0, split);
  const passed = split < 0 ? [] : rest.slice(split + 1);
  const at = own.findIndex((argument) => argument === "--processes" || argument.startsWith("--processes="));
  let processes = 1;
  if (at >= 0) {
    const [option = "", value] = own[at]!.includes("=") ? own[at]!.split("=") : [own[at], own[at + 1]];
    processes = Number(value);
    own.splice(at, option === own[at] ? 2 : 1);
  }
  const [module, ...unknown] = own;
  if (
    module === undefined ||
    module.startsWith("-") ||
    unknown.length > 0 ||
    !Number.isInteger(processes) ||
    processes < 1
  ) {
    fail(module === undefined ? "there is no module to run" : `this was not understood: ${rest.join(" ")}`);
  } else {
    run(module, processes, passed).then(
      (code) => process.exit(code),
      (error) => fail(String((error as Error).message)),
    );
  }
} else if (command === "--help" || command === "-h" || command === "help") {
  process.stdout.write(`${USAGE}\n`);
} else {
  fail(command === undefined ? "there is no command" : `there is no command ${command}`);
}

function fail(why: string): void {
  process.stderr.write(`tidings: ${why}\n\n${USAGE}\n`);
  process.exitCode = 2;
}

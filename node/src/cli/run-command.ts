import { run } from "./run";

const USAGE = `usage: tidings run <module> [--processes N] [-- arguments of the module]

Runs the module N times (default 1). A process that crashes is started again, at most after 30 s;
at SIGINT or SIGTERM all get SIGTERM, drain, and this ends when they have.`;

/** `tidings run` with these arguments. */
export function runCommand(args: readonly string[]): void {
  const split = args.indexOf("--");
  const own = split < 0 ? [...args] : args.slice(0, split);
  if (own.includes("--help") || own.includes("-h")) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  const passed = split < 0 ? [] : args.slice(split + 1);
  const at = own.findIndex((argument) => argument === "--processes" || argument.startsWith("--processes="));
  let processes = 1;
  if (at >= 0) {
    const [option = "", value] = own[at]!.includes("=") ? own[at]!.split("=") : [own[at], own[at + 1]];
    processes = Number(value);
    own.splice(at, option === own[at] ? 2 : 1);
  }
  const [module, ...unknown] = own;
  if (module === undefined) {
    fail("there is no module to run");
    return;
  }
  if (module.startsWith("-") || unknown.length > 0 || !Number.isInteger(processes) || processes < 1) {
    fail(`this was not understood: ${args.join(" ")}`);
    return;
  }
  run(module, processes, passed).then(
    (code) => process.exit(code),
    (error) => fail(String((error as Error).message)),
  );
}

function fail(why: string): void {
  process.stderr.write(`tidings: ${why}\n\n${USAGE}\n`);
  process.exitCode = 2;
}

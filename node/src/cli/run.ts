import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";

/** Milliseconds before a crashed process is started again: they double while it keeps crashing. */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** A process that has run for so long has not crashed at its start. */
const SETTLED = 60_000;
/** Longest that a process may take to drain: the drain time-out and a little more. */
const DRAIN = 40_000;

/** Keeps `processes` of the module running until a signal. Answers the exit code. */
export async function run(module: string, processes: number, args: readonly string[]): Promise<number> {
  const file = resolve(module);
  if (!existsSync(file)) throw new Error(`there is no module ${file}`);
  let stopping = false;
  let killed = false;
  const children = new Set<ChildProcess>();
  const waits = new Set<() => void>();

  const stop = () => {
    if (stopping) return;
    stopping = true;
    for (const wake of waits) wake();
    for (const child of children) child.kill("SIGTERM");
    setTimeout(() => {
      killed = children.size > 0;
      for (const child of children) child.kill("SIGKILL");
    }, DRAIN).unref();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);

  const one = async (number: number): Promise<void> => {
    for (let wait = FIRST_WAIT; !stopping; ) {
      const began = Date.now();
      const child = spawn(process.execPath, [...process.execArgv, file, ...args], {
        stdio: "inherit",
        env: { ...process.env, TIDINGS_PROCESS: String(number) },
        // A Ctrl-C goes to the whole group of the terminal: then it would come twice, and the second one kills.
        detached: process.platform !== "win32",
      });
      children.add(child);
      const how = await new Promise<string | number>((ended) => {
        child.on("error", (error) => ended(error.message));
        child.on("exit", (code, signal) => ended(signal ?? code ?? "unknown"));
      });
      children.delete(child);
      if (stopping || how === 0) return;
      if (Date.now() - began > SETTLED) wait = FIRST_WAIT;
      process.stderr.write(`tidings: process ${number} ended with ${how}, starts again in ${wait / 1000} s\n`);
      await new Promise<void>((wake) => {
        const timer = setTimeout(done, wait);
        function done() {
          clearTimeout(timer);
          waits.delete(done);
          wake();
        }
        waits.add(done);
      });
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  };
  await Promise.all(Array.from({ length: processes }, (_, at) => one(at + 1)));
  return killed ? 1 : 0;
}

import { native } from "../native";

/** Runs a command of the engine on this thread and returns its exit code. */
export function tidings(args: readonly string[]): number {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // Node's own handlers end the process at once, whoever else listens. Without the last listener there is no handler at
    // all: the command drains where it takes the signal over, and elsewhere the signal ends it.
    const listener = () => {};
    process.on(signal, listener);
    process.off(signal, listener);
  }
  return native().cli(["tidings", ...args]);
}

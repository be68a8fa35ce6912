// Where the engine's warnings and failures of handlers are said.

/** Anything with `warn` and `error`, as `console`, pino and winston have them. */
export interface Logger {
  warn(message: string, details?: unknown): void;
  error(message: string, details?: unknown): void;
}

/** A console without the types of Node or the browser. */
declare const console: Logger;

const standard: Logger = {
  warn: (message) => console.warn(`tidings: ${message}`),
  error: (message) => console.error(`tidings: ${message}`),
};

/** Loggers of the brokers that are in use, with how many use each. */
const used = new Map<Logger, number>();

/** The logger to use for an option that may be missing; `false` is silence. */
export function loggerOf(option: Logger | false | undefined): Logger {
  return option === false ? silent : (option ?? standard);
}

const silent: Logger = { warn: () => {}, error: () => {} };

/** Sends the engine's lines to this logger as well, until the returned function is called. */
export function listen(logger: Logger): () => void {
  used.set(logger, (used.get(logger) ?? 0) + 1);
  let listening = true;
  return () => {
    if (!listening) return;
    listening = false;
    const left = (used.get(logger) ?? 1) - 1;
    if (left > 0) used.set(logger, left);
    else used.delete(logger);
  };
}

/** A line of the engine: the engine does not know which connection it belongs to, so every logger in use gets it. */
export function logLine(json: string): void {
  const line = JSON.parse(json) as { level: "warn" | "error"; message: string };
  for (const logger of used.size > 0 ? [...used.keys()] : [standard]) {
    try {
      logger[line.level](line.message);
    } catch (error) {
      // A logger that throws must not keep answers from arriving.
      standard.error(`the logger failed: ${String(error)}`);
    }
  }
}

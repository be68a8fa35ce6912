// SQLite for Node: its own where it has one (22.13 and newer), else better-sqlite3.

/** Opens the file. What both have in common: `exec`, `prepare().run()`, `prepare().get()`, `close`. */
export async function openDatabase(file) {
  const own = process.getBuiltinModule?.("node:sqlite");
  const database = own ? new own.DatabaseSync(file) : new (await import("better-sqlite3")).default(file);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
  return database;
}

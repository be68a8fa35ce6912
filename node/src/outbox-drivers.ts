// Which driver an object belongs to, whether it has a transaction open, and how it runs a statement. Objects are
// recognised by what they have: nothing of a driver is imported.

import { failure } from "./error";

/** A parameter of a statement, as drivers take it. */
export type Param = null | number | string | Uint8Array;

/** A statement for a program that runs it by itself, in its own transaction. */
export interface Statement {
  /** SQL with the placeholders of the style that was asked for. */
  sql: string;
  /** The parameters, in order. */
  params: Param[];
}

/** @internal How one object runs statements in the transaction that it has open. */
export interface Driver {
  /** What it is called in errors. */
  name: string;
  dialect: string;
  style: string;
  /** What to do where there is no transaction. */
  remedy: string;
  /** `undefined`: the object does not show it. */
  inTransaction(): boolean | undefined | Promise<boolean | undefined>;
  /** Runs a statement; how many rows it changed. Synchronous drivers answer at once. */
  run(statement: Statement): number | Promise<number>;
}

// biome-ignore lint/suspicious/noExplicitAny: objects of drivers that are not imported
type Any = any;

const is = (value: unknown, ...methods: string[]): boolean =>
  value !== null &&
  (typeof value === "object" || typeof value === "function") &&
  methods.every((method) => typeof (value as Any)[method] === "function");

const DIALECTS: Record<string, string> = {
  postgres: "postgres",
  postgresql: "postgres",
  cockroachdb: "postgres",
  pg: "postgres",
  pgnative: "postgres",
  mysql: "mysql",
  mysql2: "mysql",
  mariadb: "mysql",
  sqlite: "sqlite",
  sqlite3: "sqlite",
  "better-sqlite3": "sqlite",
};

function dialectOf(name: unknown, driver: string): string {
  const dialect = DIALECTS[String(name)];
  if (dialect === undefined) throw new TypeError(`${driver}: the outbox does not know the database ${String(name)}`);
  return dialect;
}

/** Status of a MySQL server: a transaction is open; statements commit by themselves. */
const IN_TRANSACTION = 1;
const AUTOCOMMIT = 2;

const MAKERS: ((object: Any) => Driver | undefined)[] = [
  prisma,
  typeorm,
  knex,
  drizzle,
  postgresJs,
  sqlite,
  mysql2,
  pg,
];

/** @internal The driver of an object; a TypeError if it is of none that is known. */
export function recognise(object: unknown): Driver {
  for (const make of MAKERS) {
    const driver = make(object);
    if (driver !== undefined) return driver;
  }
  const shown = object === null ? "null" : ((object as Any)?.constructor?.name ?? typeof object);
  throw new TypeError(
    `${shown} is no connection that the outbox knows: give it one of pg, postgres, mysql2, better-sqlite3, node:sqlite, ` +
      "or a transaction of Knex, Drizzle, TypeORM or Prisma, or run what outbox.statements() renders",
  );
}

/** @internal Fails unless a transaction is open. */
export function check(driver: Driver, assumeTransaction: boolean): void | Promise<void> {
  if (assumeTransaction) return;
  const open = driver.inTransaction();
  if (open instanceof Promise) return open.then((found) => refuse(driver, found));
  refuse(driver, open);
}

function refuse(driver: Driver, open: boolean | undefined): void {
  if (open === true) return;
  const message =
    open === false
      ? "there is no open transaction: what is written would be there whatever becomes of your data"
      : "this driver does not show whether a transaction is open";
  throw failure("NO_TRANSACTION", message, { field: "connection", value: driver.name, remedy: driver.remedy });
}

/** An interactive transaction of Prisma: what opens and closes connections is not there. */
function prisma(object: Any): Driver | undefined {
  if (!is(object, "$executeRawUnsafe")) return undefined;
  const dialect = dialectOf(object._activeProvider, "Prisma");
  return {
    name: "Prisma",
    dialect,
    style: dialect === "postgres" ? "dollar" : "question",
    remedy: "prisma.$transaction(async (tx) => outbox.add(tx, event))",
    inTransaction: () => object.$transaction === undefined,
    run: ({ sql, params }) =>
      sql.startsWith("SELECT") || sql.startsWith("WITH")
        ? object.$queryRawUnsafe(`${sql}`, ...params).then(() => 0)
        : object.$executeRawUnsafe(sql, ...params),
  };
}

/** An EntityManager or a QueryRunner of TypeORM. */
function typeorm(object: Any): Driver | undefined {
  const options = object?.connection?.options ?? object?.dataSource?.options;
  if (!is(object, "query") || typeof options?.type !== "string") return undefined;
  const runner = "isTransactionActive" in object ? object : object.queryRunner;
  const dialect = dialectOf(options.type, "TypeORM");
  return {
    name: "TypeORM",
    dialect,
    style: dialect === "postgres" ? "dollar" : "question",
    remedy: "dataSource.transaction(async (manager) => outbox.add(manager, event))",
    inTransaction: () => runner?.isTransactionActive === true,
    run: async ({ sql, params }) => {
      const result = await (runner ?? object).query(sql, params, true);
      return result?.affected ?? result?.raw?.changes ?? 0;
    },
  };
}

/** A Transaction of Knex, which marks parameters by ? on every database. */
function knex(object: Any): Driver | undefined {
  if (!is(object, "raw") || object.client?.config === undefined) return undefined;
  const dialect = dialectOf(object.client.config.client, "Knex");
  return {
    name: "Knex",
    dialect,
    style: "question",
    remedy: "knex.transaction(async (trx) => outbox.add(trx, event))",
    inTransaction: () => object.isTransaction === true && object.isCompleted?.() !== true,
    run: async ({ sql, params }) => changed(await object.raw(sql, params)),
  };
}

/** A transaction of Drizzle: the connection below it is that of its driver. */
function drizzle(object: Any): Driver | undefined {
  const client = object?.session?.client;
  if (client === undefined || object.dialect === undefined) return undefined;
  const below = recognise(client);
  return {
    ...below,
    name: "Drizzle",
    remedy: "db.transaction(async (tx) => outbox.add(tx, event))",
    inTransaction: () => is(object, "rollback"),
  };
}

/** postgres.js: what `sql.begin` hands over can make savepoints. */
function postgresJs(object: Any): Driver | undefined {
  if (typeof object !== "function" || !is(object, "unsafe", "file")) return undefined;
  return {
    name: "postgres",
    dialect: "postgres",
    style: "dollar",
    remedy: "sql.begin(async (tx) => outbox.add(tx, event))",
    inTransaction: () => is(object, "savepoint"),
    run: async ({ sql, params }) => (await object.unsafe(sql, params)).count ?? 0,
  };
}

/** better-sqlite3 and node:sqlite, which are synchronous. */
function sqlite(object: Any): Driver | undefined {
  if (!is(object, "prepare", "exec")) return undefined;
  return {
    name: object.constructor?.name ?? "sqlite",
    dialect: "sqlite",
    style: "question",
    remedy: "begin one before, or say { assumeTransaction: true } where this version of Node does not show it",
    inTransaction: () => object.inTransaction ?? object.isTransaction,
    run: ({ sql, params }) => Number(object.prepare(sql).run(...params).changes),
  };
}

/** A connection of mysql2, with callbacks or promises. The server's answer says whether a transaction is open. */
function mysql2(object: Any): Driver | undefined {
  const promised = is(object, "promise") ? object.promise() : object;
  if (!is(promised, "query", "execute", "beginTransaction")) return undefined;
  return {
    name: "mysql2",
    dialect: "mysql",
    style: "question",
    remedy: "await connection.beginTransaction() before",
    inTransaction: async () => {
      const [answer] = await promised.query("DO 0");
      return (answer.serverStatus & IN_TRANSACTION) !== 0 || (answer.serverStatus & AUTOCOMMIT) === 0;
    },
    run: async ({ sql, params }) => {
      const [answer] = await promised.query(sql, params.map(buffered));
      return answer?.affectedRows ?? 0;
    },
  };
}

/** A Client of pg, or one of its Pool. Older ones do not show whether a transaction is open. */
function pg(object: Any): Driver | undefined {
  if (!is(object, "query", "release") && !is(object, "query", "end", "connect")) return undefined;
  return {
    name: "pg",
    dialect: "postgres",
    style: "dollar",
    remedy:
      'await client.query("BEGIN") on one client of the pool; with a pg that does not show it, { assumeTransaction: true }',
    inTransaction: () => {
      // A pool takes another client for each query.
      if (typeof object.totalCount === "number") return false;
      const status = object.getTransactionStatus?.() ?? undefined;
      return status === undefined ? undefined : status !== "I";
    },
    run: async ({ sql, params }) => (await object.query(sql, params.map(buffered))).rowCount ?? 0,
  };
}

/** Drivers know Buffer. */
function buffered(param: Param): Param {
  return param instanceof Uint8Array && !Buffer.isBuffer(param)
    ? Buffer.from(param.buffer, param.byteOffset, param.byteLength)
    : param;
}

/** Rows that a raw statement of Knex has changed. */
function changed(answer: Any): number {
  const first = Array.isArray(answer) ? answer[0] : answer;
  return first?.rowCount ?? first?.affectedRows ?? first?.changes ?? 0;
}

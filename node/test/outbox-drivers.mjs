// Databases and drivers: how each opens a transaction, ends it, and has none.

import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";
import mysql from "mysql2/promise";
import pg from "pg";
import postgres from "postgres";

const require = createRequire(import.meta.url);

/** A transaction under way: `connection` for the outbox, `end(commit)`. */
async function held(run) {
  let commit;
  let over;
  const decided = new Promise((resolve, reject) => {
    commit = (good) => (good ? resolve() : reject(new Rollback()));
  });
  const begun = new Promise((resolve, reject) => {
    over = run(async (connection) => {
      resolve(connection);
      await decided;
    }).catch((error) => {
      if (!(error instanceof Rollback)) reject(error);
    });
  });
  decided.catch(() => {});
  const connection = await begun;
  return {
    connection,
    async end(good) {
      commit(good);
      await over;
    },
  };
}

class Rollback extends Error {}

class Database {
  table = `node_${randomUUID().slice(0, 12).replaceAll("-", "")}`;
  #open = [];

  constructor(folder) {
    this.folder = folder;
  }

  /** What is closed at the end. */
  keep(close) {
    this.#open.push(close);
  }

  async finish() {
    for (const close of this.#open.toReversed()) await close();
  }

  async setBody(id, text) {
    await this.admin(`UPDATE ${this.table} SET body = ${this.hex(text)} WHERE event_id = '${id}'`);
  }

  async remove() {
    await this.admin(`DROP VIEW ${this.table}_status`);
    for (const suffix of ["", "_part", "_relay", ...(this.dialect === "mysql" ? ["_lock"] : [])]) {
      await this.admin(`DROP TABLE ${this.table}${suffix}`);
    }
    await this.admin(`DELETE FROM tidings_schema WHERE component = 'outbox:${this.table}'`);
  }
}

class Postgres extends Database {
  dialect = "postgres";
  url = process.env.DATABASE_URL;

  hex(text) {
    return `'\\x${Buffer.from(text).toString("hex")}'`;
  }

  async admin(sql) {
    const client = new pg.Client(this.url);
    await client.connect();
    await client.query(sql);
    await client.end();
  }
}

class Pg extends Postgres {
  static driver = "pg";

  async client() {
    const client = new pg.Client(this.url);
    await client.connect();
    this.keep(() => client.end());
    return client;
  }

  async begin() {
    const connection = await this.client();
    await connection.query("BEGIN");
    return { connection, end: (commit) => connection.query(commit ? "COMMIT" : "ROLLBACK") };
  }

  loose() {
    return this.client();
  }
}

/** A library whose transactions are functions that it calls: `handle` opens what has them, `opening` names the method. */
const calling = (base, driver, handle, opening = "transaction") =>
  class extends base {
    static driver = driver;

    async open() {
      const { db, close } = await handle(this.url);
      this.keep(close);
      return db;
    }

    async begin() {
      const db = await this.open();
      return held((body) => db[opening](body));
    }

    async loose() {
      const db = await this.open();
      // What a program of TypeORM has in hand.
      return db.manager ?? db;
    }
  };

const knex = (client) => (connection) => {
  const db = require("knex")({ client, connection });
  return { db, close: () => db.destroy() };
};

const PostgresJs = calling(
  Postgres,
  "postgres",
  (url) => {
    const db = postgres(url, { max: 1 });
    return { db, close: () => db.end({ timeout: 1 }) };
  },
  "begin",
);

const KnexPg = calling(Postgres, "Knex", knex("pg"));

const DrizzlePg = calling(Postgres, "Drizzle", (connectionString) => {
  const client = new pg.Pool({ connectionString });
  return { db: require("drizzle-orm/node-postgres").drizzle({ client }), close: () => client.end() };
});

const TypeOrm = calling(Postgres, "TypeORM", async (url) => {
  const { DataSource } = require("typeorm");
  const db = await new DataSource({ type: "postgres", url }).initialize();
  return { db, close: () => db.destroy() };
});

/** What Prisma's client shows of an interactive transaction, over a client of pg: its generator needs the network. */
class PrismaStandIn extends Pg {
  static driver = "Prisma (a hand-made client)";

  wrapped(client, root) {
    const rows = async (sql, params) =>
      client.query(
        sql,
        params.map((one) => (one instanceof Uint8Array ? Buffer.from(one) : one)),
      );
    return {
      _activeProvider: "postgresql",
      $executeRawUnsafe: async (sql, ...params) => (await rows(sql, params)).rowCount,
      $queryRawUnsafe: async (sql, ...params) => (await rows(sql, params)).rows,
      ...(root ? { $transaction() {} } : {}),
    };
  }

  async begin() {
    const { connection, end } = await super.begin();
    return { connection: this.wrapped(connection, false), end };
  }

  async loose() {
    return this.wrapped(await this.client(), true);
  }
}

class MySql extends Database {
  static driver = "mysql2";
  dialect = "mysql";
  url = process.env.MYSQL_URL;

  hex(text) {
    return `x'${Buffer.from(text).toString("hex")}'`;
  }

  async admin(sql) {
    const connection = await mysql.createConnection(this.url);
    await connection.query(sql);
    await connection.end();
  }

  async connect() {
    const connection = await mysql.createConnection(this.url);
    this.keep(() => connection.end());
    return connection;
  }

  async begin() {
    const connection = await this.connect();
    await connection.beginTransaction();
    return { connection, end: (commit) => (commit ? connection.commit() : connection.rollback()) };
  }

  loose() {
    return this.connect();
  }
}

const KnexMySql = calling(MySql, "Knex mysql2", knex("mysql2"));

class Sqlite extends Database {
  dialect = "sqlite";

  constructor(folder) {
    super(folder);
    this.path = join(folder, "app.db");
    this.url = `sqlite:${this.path}`;
  }

  hex(text) {
    return `x'${Buffer.from(text).toString("hex")}'`;
  }

  async admin(sql) {
    const database = this.open();
    database.exec(sql);
    database.close();
  }

  async begin() {
    const connection = this.open();
    this.keep(() => connection.close());
    connection.exec("BEGIN IMMEDIATE");
    return { connection, end: async (commit) => connection.exec(commit ? "COMMIT" : "ROLLBACK") };
  }

  async loose() {
    const connection = this.open();
    this.keep(() => connection.close());
    return connection;
  }

  async remove() {}
}

class BetterSqlite3 extends Sqlite {
  static driver = "better-sqlite3";

  open() {
    return new (require("better-sqlite3"))(this.path, { timeout: 30_000 });
  }
}

class NodeSqlite extends Sqlite {
  static driver = "node:sqlite";

  open() {
    const { DatabaseSync } = require("node:sqlite");
    const database = new DatabaseSync(this.path);
    database.exec("PRAGMA busy_timeout = 30000");
    return database;
  }
}

const can = (name) => {
  try {
    require(name);
    return undefined;
  } catch (error) {
    return `${name} is not there: ${error.code}`;
  }
};
const noPostgres = process.env.DATABASE_URL
  ? undefined
  : "DATABASE_URL is not set: no PostgreSQL here (tests/services up)";
const noMySql = process.env.MYSQL_URL ? undefined : "MYSQL_URL is not set: no MariaDB here (tests/services up)";

/** Each driver, and why it is not run here if it is not. */
export const drivers = [
  ...[Pg, PostgresJs, KnexPg, DrizzlePg, TypeOrm, PrismaStandIn].map((make) => ({ make, skip: noPostgres })),
  ...[MySql, KnexMySql].map((make) => ({ make, skip: noMySql })),
  { make: BetterSqlite3, skip: can("better-sqlite3") },
  { make: NodeSqlite, skip: can("node:sqlite") },
];

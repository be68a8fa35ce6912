"""Databases and drivers: how each opens, ends and has no transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pymysql
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

try:
    import MySQLdb
except ImportError:
    MySQLdb = None


@dataclass
class Tx:
    """An open transaction."""

    connection: Any
    finish: Callable[[bool], Any]

    async def end(self, *, commit: bool) -> None:
        ended = self.finish(commit)
        if isinstance(ended, Awaitable):
            await ended


class Database:
    """Tables of a test's own, and the way of one driver to them."""

    name = ""
    dialect = ""

    def __init__(self, table: str, folder: Path) -> None:
        self.table = table
        self.folder = folder
        self.url = self.reach()
        self.opened: list[Any] = []

    def reach(self) -> str:
        raise NotImplementedError

    async def begin(self) -> Tx:
        connection = self.keep(self.connect())
        return Tx(connection, lambda commit: connection.commit() if commit else connection.rollback())

    def connect(self) -> Any:
        raise NotImplementedError

    async def autocommitting(self) -> Any:
        raise NotImplementedError

    def keep(self, connection: Any) -> Any:
        self.opened.append(connection)
        return connection

    async def finish(self) -> None:
        for one in reversed(self.opened):
            closed = one.close() if hasattr(one, "close") else one.dispose()
            if isinstance(closed, Awaitable):
                await closed
        self.opened.clear()

    def admin(self, sql: str, *params: Any) -> None:
        raise NotImplementedError

    def set_body(self, identifier: str, text: str) -> None:
        self.admin(f"UPDATE {self.table} SET body = %s WHERE event_id = %s", text.encode(), identifier)

    def remove(self) -> None:
        for kind, suffix in (
            ("VIEW", "_status"),
            ("TABLE", ""),
            ("TABLE", "_part"),
            ("TABLE", "_relay"),
            ("TABLE", "_lock"),
        ):
            self.admin(f"DROP {kind} IF EXISTS {self.table}{suffix}")
        self.admin("DELETE FROM tidings_schema WHERE component = %s", f"outbox:{self.table}")


class Postgres(Database):
    dialect = "postgres"

    def reach(self) -> str:
        url = os.environ.get("DATABASE_URL")
        return url or pytest.skip("DATABASE_URL is not set: no PostgreSQL here (tests/services up)")

    def admin(self, sql: str, *params: Any) -> None:
        # A test may have installed nothing.
        with suppress(psycopg.errors.UndefinedTable), psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql, params or None)


class Psycopg(Postgres):
    name = "psycopg"

    def connect(self) -> Any:
        return psycopg.connect(self.url)

    async def autocommitting(self) -> Any:
        return self.keep(psycopg.connect(self.url, autocommit=True))


class AsyncPsycopg(Postgres):
    name = "psycopg async"

    async def begin(self) -> Tx:
        connection = self.keep(await psycopg.AsyncConnection.connect(self.url))
        return Tx(connection, lambda commit: connection.commit() if commit else connection.rollback())

    async def autocommitting(self) -> Any:
        return self.keep(await psycopg.AsyncConnection.connect(self.url, autocommit=True))


class Asyncpg(Postgres):
    name = "asyncpg"

    async def begin(self) -> Tx:
        connection = self.keep(await asyncpg.connect(self.url))
        transaction = connection.transaction()
        await transaction.start()
        return Tx(connection, lambda commit: transaction.commit() if commit else transaction.rollback())

    async def autocommitting(self) -> Any:
        return self.keep(await asyncpg.connect(self.url))


class SqlAlchemy(Postgres):
    name = "SQLAlchemy Connection"
    scheme = "postgresql+psycopg"

    def engine(self) -> Any:
        # Closed last.
        return self.keep(sqlalchemy.create_engine(self.address(), poolclass=sqlalchemy.NullPool))

    def address(self) -> str:
        return f"{self.scheme}://{self.url.partition('://')[2]}"

    def connect(self) -> Any:
        return self.engine().connect()

    async def autocommitting(self) -> Any:
        return self.keep(self.engine().connect().execution_options(isolation_level="AUTOCOMMIT"))


class SqlAlchemySession(SqlAlchemy):
    name = "SQLAlchemy Session"

    def connect(self) -> Any:
        return Session(self.engine())

    async def autocommitting(self) -> Any:
        return self.keep(Session(self.engine().execution_options(isolation_level="AUTOCOMMIT")))


class SqlAlchemyAsync(SqlAlchemy):
    name = "SQLAlchemy AsyncConnection"
    scheme = "postgresql+asyncpg"

    def engine(self) -> Any:
        return self.keep(create_async_engine(self.address(), poolclass=sqlalchemy.NullPool))

    async def begin(self) -> Tx:
        connection = self.keep(AsyncConnection(self.engine()))
        await connection.start()
        return Tx(connection, lambda commit: connection.commit() if commit else connection.rollback())

    async def autocommitting(self) -> Any:
        connection = self.keep(AsyncConnection(self.engine().execution_options(isolation_level="AUTOCOMMIT")))
        return await connection.start()


class SqlAlchemyAsyncSession(SqlAlchemyAsync):
    name = "SQLAlchemy AsyncSession"

    async def begin(self) -> Tx:
        session = self.keep(AsyncSession(self.engine()))
        return Tx(session, lambda commit: session.commit() if commit else session.rollback())

    async def autocommitting(self) -> Any:
        return self.keep(AsyncSession(self.engine().execution_options(isolation_level="AUTOCOMMIT")))


class MySql(Database):
    dialect = "mysql"

    def reach(self) -> str:
        url = os.environ.get("MYSQL_URL")
        return url or pytest.skip("MYSQL_URL is not set: no MariaDB here (tests/services up)")

    def place(self) -> dict[str, Any]:
        parts = urlsplit(self.url)
        return {
            "host": parts.hostname,
            "port": parts.port or 3306,
            "user": parts.username,
            "password": parts.password,
            "database": parts.path[1:],
        }

    def admin(self, sql: str, *params: Any) -> None:
        with closing(pymysql.connect(**self.place(), autocommit=True)) as connection, connection.cursor() as cursor:
            try:
                cursor.execute(sql, params or None)
            except pymysql.err.ProgrammingError as error:
                if error.args[0] != 1146:
                    raise


class PyMySql(MySql):
    name = "PyMySQL"

    def connect(self) -> Any:
        return pymysql.connect(**self.place())

    async def autocommitting(self) -> Any:
        return self.keep(pymysql.connect(**self.place(), autocommit=True))


class MySqlClient(MySql):
    name = "mysqlclient"

    def reach(self) -> str:
        if MySQLdb is None:
            pytest.skip("mysqlclient is not installed: it has no wheels, and needs MariaDB's headers")
        return super().reach()

    def connect(self) -> Any:
        return MySQLdb.connect(**self.place())

    async def autocommitting(self) -> Any:
        connection = self.keep(self.connect())
        connection.autocommit(True)
        return connection


class SqlAlchemyMySql(MySql):
    name = "SQLAlchemy PyMySQL"

    def connect(self) -> Any:
        address = f"mysql+pymysql://{self.url.partition('://')[2]}"
        return self.keep(sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)).connect()

    async def autocommitting(self) -> Any:
        return self.connect().execution_options(isolation_level="AUTOCOMMIT")


class Sqlite(Database):
    dialect = "sqlite"

    def reach(self) -> str:
        return f"sqlite:{self.folder}/app.db"

    def file(self) -> str:
        return f"{self.folder}/app.db"

    def admin(self, sql: str, *params: Any) -> None:
        with closing(sqlite3.connect(self.file(), timeout=30)) as connection, connection:
            connection.execute(sql.replace("%s", "?"), params)

    def remove(self) -> None:
        """The folder goes with the test."""


class Sqlite3(Sqlite):
    name = "sqlite3"

    def connect(self) -> Any:
        return sqlite3.connect(self.file(), timeout=30)

    async def autocommitting(self) -> Any:
        return self.keep(sqlite3.connect(self.file(), isolation_level=None))


class SqlAlchemySqlite(Sqlite):
    name = "SQLAlchemy sqlite"

    def connect(self) -> Any:
        return self.keep(sqlalchemy.create_engine(f"sqlite:///{self.file()}", poolclass=sqlalchemy.NullPool)).connect()

    async def autocommitting(self) -> Any:
        return self.connect().execution_options(isolation_level="AUTOCOMMIT")


class Djangos(Database):
    """A connection of Django's, without a project around it."""

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def wrapper(self) -> Any:
        import django
        from django.conf import settings
        from django.db.utils import ConnectionHandler

        if not settings.configured:
            settings.configure()
            django.setup()
        wrapper: Any = ConnectionHandler({"default": self.settings()})["default"]
        # One thread per connection is for threads that share one by accident.
        wrapper.inc_thread_sharing()
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        return self.keep(wrapper)

    async def begin(self) -> Tx:
        wrapper = self.wrapper()
        wrapper.set_autocommit(False)

        def end(commit: bool) -> None:
            wrapper.commit() if commit else wrapper.rollback()

        return Tx(wrapper, end)

    async def autocommitting(self) -> Any:
        return self.wrapper()


class DjangoSqlite(Djangos, Sqlite):
    name = "Django"

    def settings(self) -> dict[str, Any]:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": self.file(), "OPTIONS": {"timeout": 30}}


class DjangoPostgres(Djangos, Postgres):
    name = "Django postgres"

    def settings(self) -> dict[str, Any]:
        url = urlsplit(self.url)
        where = {"HOST": url.hostname, "PORT": url.port, "NAME": url.path[1:]}
        return {"ENGINE": "django.db.backends.postgresql", "USER": url.username, "PASSWORD": url.password, **where}


DRIVERS: dict[str, type[Database]] = {
    one.name: one
    for one in (
        Psycopg,
        AsyncPsycopg,
        Asyncpg,
        SqlAlchemy,
        SqlAlchemySession,
        SqlAlchemyAsync,
        SqlAlchemyAsyncSession,
        PyMySql,
        MySqlClient,
        SqlAlchemyMySql,
        Sqlite3,
        SqlAlchemySqlite,
        DjangoSqlite,
        DjangoPostgres,
    )
}

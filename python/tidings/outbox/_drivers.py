"""Which driver an object belongs to, whether it has a transaction open, and how it runs a statement.

Objects are recognised by the names of their classes: nothing of a driver is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

Statement = tuple[str, list[Any]]

DIALECTS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
STYLES = {"qmark": "question", "format": "format", "pyformat": "format", "numeric_dollar": "dollar"}


class Driver:
    """How one kind of object runs statements in the transaction that it has open."""

    dialect = "postgres"
    style = "format"
    asynchronous = False
    remedy = "begin one before"

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def check(self, *, assume_transaction: bool) -> None:
        """Raises NoTransactionError where the object shows that it has none."""
        if not assume_transaction and self.autocommits():
            kind = type(self.connection)
            raise errors.NoTransactionError(
                "there is no open transaction: what is written would be there whatever becomes of your data",
                field="connection",
                value=f"{kind.__module__}.{kind.__qualname__}",
                remedy=self.remedy,
            )

    def autocommits(self) -> bool:
        """Whether a statement would be committed by itself."""
        raise NotImplementedError

    def run(self, statement: Statement) -> int:
        """Runs it; how many rows it changed."""
        raise NotImplementedError

    def run_async(self, statement: Statement) -> Awaitable[int]:
        """Runs it in asyncio; how many rows it changed."""
        raise NotImplementedError


class Psycopg(Driver):
    """psycopg 3: in autocommit mode the status says whether a transaction is open; otherwise a statement begins one."""

    remedy = "with connection.transaction(): …, or leave autocommit off"

    def autocommits(self) -> bool:
        return bool(self.connection.autocommit) and self.connection.info.transaction_status == 0

    def run(self, statement: Statement) -> int:
        return int(self.connection.execute(*statement).rowcount)


class AsyncPsycopg(Psycopg):
    """psycopg 3 in asyncio."""

    asynchronous = True
    remedy = "async with connection.transaction(): …, or leave autocommit off"

    async def run_async(self, statement: Statement) -> int:
        return int((await self.connection.execute(*statement)).rowcount)


class Asyncpg(Driver):
    """asyncpg says itself whether a transaction is open."""

    style = "dollar"
    asynchronous = True
    remedy = "async with connection.transaction(): …"

    def autocommits(self) -> bool:
        return not self.connection.is_in_transaction()

    async def run_async(self, statement: Statement) -> int:
        sql, params = statement
        status: str = await self.connection.execute(sql, *params)
        return int(status.rpartition(" ")[2])


class SqlAlchemy(Driver):
    """SQLAlchemy's Connection: it begins a transaction with its first statement, unless it is in AUTOCOMMIT."""

    remedy = 'leave the isolation level "AUTOCOMMIT" out'

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.dialect = _named(DIALECTS, connection.dialect.name, connection)
        self.style = _named(STYLES, connection.dialect.paramstyle, connection)

    def autocommits(self) -> bool:
        return bool(self.connection._is_autocommit_isolation())

    def run(self, statement: Statement) -> int:
        sql, params = statement
        return int(self.connection.exec_driver_sql(sql, tuple(params)).rowcount)


class SqlAlchemyAsync(SqlAlchemy):
    """SQLAlchemy's AsyncConnection."""

    asynchronous = True

    def autocommits(self) -> bool:
        return bool(self.connection.sync_connection._is_autocommit_isolation())

    async def run_async(self, statement: Statement) -> int:
        sql, params = statement
        return int((await self.connection.exec_driver_sql(sql, tuple(params))).rowcount)


class SqlAlchemySession(SqlAlchemy):
    """SQLAlchemy's Session: its connection, in its transaction."""

    def __init__(self, session: Any) -> None:
        super().__init__(session.connection())


class SqlAlchemyAsyncSession(Driver):
    """SQLAlchemy's AsyncSession, whose connection has to be awaited."""

    asynchronous = True

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        bound = session.get_bind()
        self.dialect = _named(DIALECTS, bound.dialect.name, session)
        self.style = _named(STYLES, bound.dialect.paramstyle, session)

    def check(self, *, assume_transaction: bool) -> None:
        """Its connection is not there yet: `run_async` looks."""
        self.assume_transaction = assume_transaction

    async def run_async(self, statement: Statement) -> int:
        own = SqlAlchemyAsync(await self.connection.connection())
        own.check(assume_transaction=self.assume_transaction)
        return await own.run_async(statement)


class Django(Driver):
    """A connection of Django, `django.db.connection` or one of `connections`."""

    remedy = "with transaction.atomic(): …"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.dialect = _named(DIALECTS, connection.vendor, connection)

    def autocommits(self) -> bool:
        return not self.connection.in_atomic_block and bool(self.connection.get_autocommit())

    def run(self, statement: Statement) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(*statement)
            return int(cursor.rowcount)


class Sqlite3(Driver):
    """The standard library's sqlite3: a statement begins a transaction, unless that is switched off."""

    dialect = "sqlite"
    style = "question"
    remedy = 'connection.execute("BEGIN") before, or leave isolation_level and autocommit as they are by default'

    def autocommits(self) -> bool:
        if self.connection.in_transaction:
            return False
        # Python 3.12 has the attribute; -1 there means that isolation_level decides.
        mode = getattr(self.connection, "autocommit", -1)
        return mode is True or (mode == -1 and self.connection.isolation_level is None)

    def run(self, statement: Statement) -> int:
        return int(self.connection.execute(*statement).rowcount)


class MySqlClient(Driver):
    """mysqlclient shows whether it commits by itself, but not whether a transaction was begun in that mode."""

    dialect = "mysql"
    remedy = "leave autocommit off; where you have begun a transaction in spite of it, say assume_transaction=True"

    def autocommits(self) -> bool:
        return bool(self.connection.get_autocommit())

    def run(self, statement: Statement) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(*statement)
            return int(cursor.rowcount)


class PyMySql(MySqlClient):
    """PyMySQL shows the server's status: whether it commits by itself, and whether a transaction is open."""

    remedy = "connection.begin() before, or leave autocommit off"

    def autocommits(self) -> bool:
        in_transaction = self.connection.server_status & 1
        return bool(self.connection.get_autocommit()) and not in_transaction


KNOWN: dict[tuple[str, str], type[Driver]] = {
    ("psycopg", "Connection"): Psycopg,
    ("psycopg", "AsyncConnection"): AsyncPsycopg,
    ("asyncpg", "Connection"): Asyncpg,
    ("asyncpg", "PoolConnectionProxy"): Asyncpg,
    ("sqlalchemy", "Connection"): SqlAlchemy,
    ("sqlalchemy", "AsyncConnection"): SqlAlchemyAsync,
    ("sqlalchemy", "Session"): SqlAlchemySession,
    ("sqlalchemy", "scoped_session"): SqlAlchemySession,
    ("sqlalchemy", "AsyncSession"): SqlAlchemyAsyncSession,
    ("sqlalchemy", "async_scoped_session"): SqlAlchemyAsyncSession,
    ("django", "BaseDatabaseWrapper"): Django,
    ("django", "ConnectionProxy"): Django,
    ("sqlite3", "Connection"): Sqlite3,
    ("pymysql", "Connection"): PyMySql,
    ("MySQLdb", "Connection"): MySqlClient,
}


def recognise(connection: Any) -> Driver:
    """The driver that `connection` belongs to. Raises TypeError if it is of none that is known."""
    for cls in type(connection).__mro__:
        found = KNOWN.get((cls.__module__.partition(".")[0], cls.__name__))
        if found is not None:
            return found(connection)
    kind = type(connection)
    raise TypeError(
        f"{kind.__module__}.{kind.__qualname__} is no connection that the outbox knows: give it one of psycopg, "
        "asyncpg, SQLAlchemy, Django, sqlite3, PyMySQL or mysqlclient, or run what Outbox.statements() renders"
    )


def run_all(driver: Driver, statements: Sequence[Statement]) -> None:
    """Runs them in order."""
    for statement in statements:
        driver.run(statement)


async def run_all_async(driver: Driver, statements: Sequence[Statement]) -> None:
    """Runs them in order, in asyncio."""
    for statement in statements:
        await driver.run_async(statement)


def _named(table: dict[str, str], name: str, connection: Any) -> str:
    found = table.get(name)
    if found is None:
        raise TypeError(f"{type(connection).__qualname__}: the outbox does not know {name!r}, only {', '.join(table)}")
    return found

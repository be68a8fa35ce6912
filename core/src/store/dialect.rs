//! What the databases' languages differ in.

use crate::{Error, ErrorKind, Result};

/// The SQL of one family of databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// PostgreSQL 12 and later.
    Postgres,
    /// MySQL 8 and later, MariaDB 10.6 and later.
    MySql,
    /// SQLite 3.35 and later.
    Sqlite,
}

impl Dialect {
    /// Every dialect there is.
    pub const ALL: &'static [Self] = &[Self::Postgres, Self::MySql, Self::Sqlite];

    /// Its name: `postgres`, `mysql`, `sqlite`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    /// The dialect of this name; `postgresql` and `mariadb` are understood too.
    pub fn of_name(name: &str) -> Result<Self> {
        match name {
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" | "mariadb" => Ok(Self::MySql),
            "sqlite" => Ok(Self::Sqlite),
            _ => Err(Error::new(ErrorKind::InvalidOption, "there is no dialect of this name")
                .field("dialect", name)
                .remedy("use postgres, mysql or sqlite")),
        }
    }

    /// How the driver that ships with the database marks a parameter.
    pub const fn default_style(self) -> ParamStyle {
        match self {
            Self::Postgres => ParamStyle::Dollar,
            Self::MySql | Self::Sqlite => ParamStyle::Question,
        }
    }

    /// `name` as an identifier, whatever is in it.
    pub(crate) fn quote(self, name: &str) -> String {
        match self {
            Self::MySql => format!("`{}`", name.replace('`', "``")),
            Self::Postgres | Self::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// Microseconds since the Unix epoch on the database's clock, whatever the session's time zone.
    ///
    /// Not the time at which the transaction began: a lease that is renewed late in a long one must count from then.
    pub(crate) const fn now(self) -> &'static str {
        match self {
            Self::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
            Self::MySql => "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
            Self::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)",
        }
    }
}

/// How a driver marks parameters in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParamStyle {
    /// `$1`, `$2` …: tokio-postgres, sqlx, asyncpg, pg.
    Dollar,
    /// `?`: SQLite, MySQL.
    Question,
    /// `%s`, and `%%` for a percent sign: psycopg, `PyMySQL`, Django.
    Format,
    /// `:p1`, `:p2` …, and `\:` for a colon: `SQLAlchemy`'s `text()`.
    Named,
}

impl ParamStyle {
    /// Every style there is.
    pub const ALL: &'static [Self] = &[Self::Dollar, Self::Question, Self::Format, Self::Named];

    /// Its name: `dollar`, `question`, `format`, `named`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dollar => "dollar",
            Self::Question => "question",
            Self::Format => "format",
            Self::Named => "named",
        }
    }

    /// The style of this name.
    pub fn of_name(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|style| style.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOption, "there is no parameter style of this name")
                .field("style", name)
                .remedy("use dollar ($1), question (?), format (%s) or named (:p1)")
        })
    }
}

//! Writes events into an outbox with sqlx, in the caller's own transaction: they are published if it commits.
//!
//! The statement is rendered by [`tidings::outbox::OutboxWriter`]; this crate runs it.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), tidings::BoxError> {
//! # let Ok(url) = std::env::var("DATABASE_URL") else { return Ok(()) };
//! # let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(&url).await?;
//! # let schema = tidings::outbox::outbox_schema(Dialect::Postgres, &Default::default());
//! # let script = format!("SET search_path = pg_temp; CREATE TABLE orders (id int PRIMARY KEY); {schema}");
//! # sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&pool).await?;
//! use tidings::DomainEvent;
//! use tidings::outbox::{Dialect, OutboxWriter};
//!
//! let outbox = OutboxWriter::new(Dialect::Postgres);
//! let mut tx = pool.begin().await?;
//! sqlx::query("INSERT INTO orders VALUES (7)").execute(&mut *tx).await?;
//! tidings_sqlx::postgres::add(&outbox, &mut tx, &[DomainEvent::new("order.placed", &7)?.into()]).await?;
//! tx.commit().await?;
//! # Ok(()) }
//! ```
//!
//! One module for each database that is switched on: `postgres`, `mysql`. For SQLite there is `tidings-rusqlite`: sqlx
//! needs an older copy of SQLite than the engine has, and a program can have one only.

macro_rules! adapter {
    ($feature:literal, $module:ident, $database:ty, $style:ident, $null:expr) => {
        #[cfg(feature = $feature)]
        #[doc = concat!("Transactions of `sqlx::Transaction<", stringify!($database), ">`.")]
        pub mod $module {
            use sqlx::{AssertSqlSafe, Executor as _, Transaction};
            use tidings::inbox::InboxWriter;
            use tidings::outbox::{OutboxEvent, OutboxWriter, ParamStyle, Statement, Value};
            use tidings::{BoxError, DomainEvent};

            /// Writes `events` in the transaction. A connection without one is not taken.
            ///
            /// Errors: the engine's, for what no relay could publish, and the driver's.
            pub async fn add(
                outbox: &OutboxWriter,
                tx: &mut Transaction<'_, $database>,
                events: &[OutboxEvent],
            ) -> Result<(), BoxError> {
                for statement in outbox.insert(ParamStyle::$style, events)? {
                    run(tx, statement).await?;
                }
                Ok(())
            }

            /// Claims the event for `subscription` in the transaction. `false`: it was processed before.
            pub async fn claim(
                inbox: &InboxWriter,
                tx: &mut Transaction<'_, $database>,
                subscription: &str,
                event: &DomainEvent,
            ) -> Result<bool, BoxError> {
                Ok(run(tx, inbox.claim(ParamStyle::$style, subscription, event)?).await? == 1)
            }

            async fn run(tx: &mut Transaction<'_, $database>, statement: Statement) -> sqlx::Result<u64> {
                // Rendered by the engine: whatever is not its own text is a parameter, or quoted.
                let mut query = sqlx::query::<$database>(AssertSqlSafe(statement.sql)).persistent(false);
                for value in statement.params {
                    query = match value {
                        Value::Int(number) => query.bind(number),
                        Value::Text(text) => query.bind(text),
                        Value::Bytes(bytes) => query.bind(bytes),
                        // Null; arrays are never rendered for callers.
                        _ => query.bind($null),
                    };
                }
                Ok((&mut **tx).execute(query).await?.rows_affected())
            }
        }
    };
}

adapter!("postgres", postgres, sqlx::Postgres, Dollar, crate::Null);
adapter!("mysql", mysql, sqlx::MySql, Question, None::<Vec<u8>>);

/// NULL of whatever type the server finds for it.
#[cfg(feature = "postgres")]
struct Null;

#[cfg(feature = "postgres")]
impl sqlx::Type<sqlx::Postgres> for Null {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        // unknown
        sqlx::postgres::PgTypeInfo::with_oid(sqlx::postgres::types::Oid(705))
    }
}

#[cfg(feature = "postgres")]
impl sqlx::Encode<'_, sqlx::Postgres> for Null {
    fn encode_by_ref(
        &self,
        _: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        Ok(sqlx::encode::IsNull::Yes)
    }
}

//! [`Inbox`]: the table as operators see it.

use std::sync::Arc;
use std::time::Duration;

use super::InboxWriter;
use crate::Result;
use crate::store::connect::{driver, existing};
use crate::store::driver::{Driver, Reader};
use crate::store::{Component, Tables};

/// Most rows that one transaction forgets.
const SOME: u32 = 1000;

/// The inbox in a database, reached with connections of its own: to install it and to clean it up. Cheap to clone.
///
/// Handlers claim with [`InboxWriter`], in their own transaction.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), tidings::BoxError> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// use std::time::Duration;
/// use tidings::inbox::Inbox;
///
/// let inbox = Inbox::connect("sqlite:app.db", "tidings_inbox").await?; // or postgres://me@localhost/app, mysql://…
/// inbox.install().await?;
/// let forgotten = inbox.forget(Duration::from_secs(7 * 24 * 3600)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Inbox {
    driver: Arc<dyn Driver>,
    writer: InboxWriter,
}

impl Inbox {
    /// Reaches the database that `url` names: `postgres://`, `mysql://`, `sqlite:`. `table` may have a schema in front.
    ///
    /// Errors: `INVALID_NAME`, `INVALID_URL`, `UNSUPPORTED_TRANSPORT`, `CONNECTION_FAILED`, `ACCESS_REFUSED`, `TLS_FAILED`.
    pub async fn connect(url: &str, table: &str) -> Result<Self> {
        let driver = driver(url).await?;
        let writer = InboxWriter::new(driver.dialect()).table(table)?;
        Ok(Self { driver, writer })
    }

    /// As [`connect`](Self::connect), for whoever only looks: a SQLite file that is not there is not made.
    pub async fn connect_existing(url: &str, table: &str) -> Result<Self> {
        Self::connect(&existing(url), table).await
    }

    /// Creates the table, or brings it to this version. Any number of processes may do so at once.
    ///
    /// `SCHEMA_TOO_NEW` if a newer version of Tidings has written it.
    pub async fn install(&self) -> Result<()> {
        self.driver.install(&self.writer.component()).await
    }

    /// Refuses a table that is not there (`INVALID_OPTION`), or is of a newer version (`SCHEMA_TOO_NEW`).
    pub async fn check(&self) -> Result<()> {
        self.driver.check(&self.writer.component()).await
    }

    /// The inboxes of the database that `tables` are in, with what there is to say about the version of each.
    pub(crate) async fn all(url: &str, tables: &Tables) -> Result<Vec<(String, Result<()>)>> {
        let driver = driver(&existing(url)).await?;
        let dialect = driver.dialect();
        let found = driver.run(Component::inboxes(dialect, &tables.versions(dialect))).await;
        driver.close().await?;
        let mut all = Vec::new();
        for row in found?.rows {
            let mut row = Reader::new(row);
            let (Some(name), Some(version)) = (row.text(), row.int()) else { continue };
            let table = name.strip_prefix("inbox:").unwrap_or("tidings_inbox").to_owned();
            let component = InboxWriter::new(dialect).table(&table)?.component();
            let checked = component.check(u32::try_from(version).unwrap_or(u32::MAX));
            all.push((table, checked));
        }
        Ok(all)
    }

    /// Forgets what was processed longer ago than `age`, in small transactions. Returns how many events.
    pub async fn forget(&self, age: Duration) -> Result<u64> {
        let mut count = 0;
        loop {
            let forget = self.writer.forget(self.writer.dialect().default_style(), age, SOME);
            let some = self.driver.run(forget).await?.affected;
            count += some;
            if some < u64::from(SOME) {
                return Ok(count);
            }
        }
    }

    /// Lets go of the database.
    pub async fn close(&self) -> Result<()> {
        self.driver.close().await
    }
}

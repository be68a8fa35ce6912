//! Which database serves which URL.

use std::sync::Arc;

use super::Tables;
use super::driver::Driver;
use crate::outbox::OutboxStore;
use crate::transport::registry::redact;
use crate::{Error, ErrorKind, Result};

/// The URL schemes of this build.
const SCHEMES: &[&str] = &[
    #[cfg(feature = "postgres")]
    "postgres://host/database",
    #[cfg(feature = "mysql")]
    "mysql://host/database",
    #[cfg(feature = "sqlite")]
    "sqlite:path.db",
];

/// Reaches the outbox that `url` names.
pub(crate) async fn connect(url: &str, tables: Tables) -> Result<Arc<dyn OutboxStore>> {
    Ok(Arc::new(super::outbox::SqlStore::new(driver(url).await?, tables)))
}

#[allow(clippy::unused_async, reason = "a build without databases has nothing to wait for")]
/// Reaches the database that `url` names.
pub(crate) async fn driver(url: &str) -> Result<Arc<dyn Driver>> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(super::postgres::Postgres::connect(url).await?)),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Arc::new(super::mysql::MySql::connect(url).await?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(super::sqlite::Sqlite::connect(url).await?)),
        _ => Err(Error::new(ErrorKind::UnsupportedTransport, format!("no store of this build serves {scheme}:"))
            .field("url", redact(url))
            .remedy(format!("use one of {}", SCHEMES.join(" ")))),
    }
}

/// `url` for whoever only looks: a SQLite file that is not there is not made.
pub(crate) fn existing(url: &str) -> String {
    if !url.starts_with("sqlite:") || url.contains("mode=") {
        return url.to_owned();
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}mode=rw")
}

//! Which database serves which URL.

use std::sync::Arc;

use super::Tables;
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

#[allow(clippy::unused_async, unused_variables, reason = "a build without databases has nothing to wait for")]
/// Reaches the store that `url` names.
pub(crate) async fn connect(url: &str, tables: Tables) -> Result<Arc<dyn OutboxStore>> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let driver = super::postgres::Postgres::connect(url).await?;
            Ok(Arc::new(super::outbox::SqlStore::new(driver, tables)))
        }
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => {
            let driver = super::mysql::MySql::connect(url).await?;
            Ok(Arc::new(super::outbox::SqlStore::new(driver, tables)))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let driver = super::sqlite::Sqlite::connect(url).await?;
            Ok(Arc::new(super::outbox::SqlStore::new(driver, tables)))
        }
        _ => Err(Error::new(ErrorKind::UnsupportedTransport, format!("no store of this build serves {scheme}:"))
            .field("url", redact(url))
            .remedy(format!("use one of {}", SCHEMES.join(" ")))),
    }
}

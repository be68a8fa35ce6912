//! What a `postgres:` URL says, and opening a connection by it.

use std::fmt;
use std::path::Path;

use futures_util::future::poll_fn;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error;
use crate::store::address;
use crate::{Error, ErrorKind, Result, tls};

/// A `postgres://user:password@host:port/database?parameters`, understood.
pub(super) struct Target {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    shown: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Target {
    /// Understands libpq's URLs with `sslmode` `disable`, `require` or `verify-full` and `sslrootcert`, and its time-outs.
    ///
    /// Without `sslmode` a server elsewhere is reached by TLS and one on this machine without. TLS always checks the
    /// certificate, against the public authorities or those of `sslrootcert`.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let address = address::parse(url)?;
        // The driver's own text may have the password in it.
        let mut config: Config = address.url.as_str().parse().map_err(|_| {
            Error::new(ErrorKind::InvalidUrl, "the store URL has a part that PostgreSQL does not know")
                .field("url", &address.shown)
                .remedy("use postgres://user:password@host:port/database?sslmode=require")
        })?;
        let tls = address.tls.unwrap_or_else(|| !config.get_hosts().iter().all(is_local));
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        if config.get_application_name().is_none() {
            config.application_name("tidings");
        }
        let tls = if tls { Some(connector(address.roots.as_deref())?) } else { None };
        Ok(Self { config, tls, shown: address.shown })
    }

    /// Opens a connection that nobody listens to.
    pub(super) async fn open(&self) -> Result<Client> {
        Ok(self.open_with(|_| {}).await?.0)
    }

    /// Opens a connection; `hear` gets what the server says unasked. The task ends with the connection.
    pub(super) async fn open_with(
        &self,
        hear: impl Fn(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, JoinHandle<()>)> {
        if let Some(tls) = &self.tls {
            let (client, connection) = self.config.connect(tls.clone()).await.map_err(error::of)?;
            return Ok((client, tokio::spawn(drive(connection, hear))));
        }
        let (client, connection) = self.config.connect(NoTls).await.map_err(error::of)?;
        Ok((client, tokio::spawn(drive(connection, hear))))
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, hear: impl Fn(AsyncMessage))
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        hear(message);
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => address::is_local(name),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn connector(roots: Option<&str>) -> Result<MakeRustlsConnect> {
    let roots = roots.map(|path| tls::Named { field: "sslrootcert", path: Path::new(path) });
    Ok(MakeRustlsConnect::new(tls::client(roots, None)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_show_no_password() {
        for url in ["postgres://me:secret@host/db?sslmode=maybe", "postgres://me:secret@host/db?nonsense=1"] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.code(), "INVALID_URL", "{url}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn servers_elsewhere_are_reached_by_tls() {
        for (url, tls) in [
            ("postgres://me@db.example.com/x", true),
            ("postgres://me@127.0.0.1/x", false),
            ("postgres://me@localhost/x?sslmode=require", true),
            ("postgres://me@db.example.com/x?sslmode=disable", false),
        ] {
            assert_eq!(Target::parse(url).unwrap().tls.is_some(), tls, "{url}");
        }
    }
}

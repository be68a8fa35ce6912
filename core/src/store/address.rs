//! What the URLs of all database servers have in common: where the server is, and whether TLS is spoken with it.

use url::Url;

use crate::transport::registry::redact;
use crate::{Error, ErrorKind, Result};

/// A URL without the parameters that are ours.
pub(super) struct Address {
    pub(super) url: Url,
    /// What `sslmode` asks for; `None`: whatever the place of the server suggests.
    pub(super) tls: Option<bool>,
    /// The file of `sslrootcert`.
    pub(super) roots: Option<String>,
    /// The URL without its password.
    pub(super) shown: String,
}

impl Address {
    /// Whether the server is on this machine.
    #[cfg(feature = "mysql")]
    pub(super) fn is_local(&self) -> bool {
        self.url.host_str().is_none_or(is_local)
    }
}

/// Whether this is a name or an address of this machine.
pub(super) fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.is_empty() || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Takes `sslmode` (`disable`, `require`, `verify-full`) and `sslrootcert` out of a URL.
pub(super) fn parse(url: &str) -> Result<Address> {
    let shown = redact(url);
    let refuse = |message: String, remedy: &str| {
        Err(Error::new(ErrorKind::InvalidUrl, message).field("url", &shown).remedy(remedy))
    };
    let mut parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(e) => {
            return refuse(
                format!("the store URL cannot be understood: {e}"),
                "use scheme://user:password@host:port/database",
            );
        }
    };
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    for (name, value) in parsed.query_pairs() {
        match &*name {
            "sslmode" => mode = Some(value.into_owned()),
            "sslrootcert" => roots = Some(value.into_owned()),
            _ => rest.push((name.into_owned(), value.into_owned())),
        }
    }
    parsed.set_query(None);
    if !rest.is_empty() {
        parsed.query_pairs_mut().extend_pairs(rest);
    }
    let tls = match mode.as_deref() {
        None => None,
        Some("disable") => Some(false),
        // The certificate is checked in each of them.
        Some("require" | "verify-ca" | "verify-full") => Some(true),
        Some(_) => {
            return refuse("the parameter sslmode is not known".to_owned(), "use disable, require or verify-full");
        }
    };
    Ok(Address { url: parsed, tls, roots, shown })
}

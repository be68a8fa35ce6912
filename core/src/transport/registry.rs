//! Which transport serves which URL.

use std::sync::Arc;

use super::Transport;
use crate::{Error, ErrorKind, Result};

#[allow(clippy::unused_async, reason = "a build without network transports has nothing to wait for")]
/// Reaches the broker that `url` names.
///
/// `memory:` is a new broker of this process; `sqlite:path.db` a file; `amqp://` and `amqps://` a RabbitMQ.
pub async fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    match scheme(url) {
        #[cfg(feature = "memory")]
        "memory" => super::memory::connect(url),
        #[cfg(feature = "sqlite")]
        "sqlite" => super::sqlite::connect(url).await,
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => super::amqp::connect(url).await,
        _ => Err(unserved(url)),
    }
}

/// Whether `url` can be understood. Nothing is reached, so a host, a file or a password may still be wrong.
///
/// Errors: `INVALID_URL`, `UNSUPPORTED_TRANSPORT`.
pub fn check(url: &str) -> Result<()> {
    match scheme(url) {
        #[cfg(feature = "memory")]
        "memory" => super::memory::connect(url).map(drop),
        #[cfg(feature = "sqlite")]
        "sqlite" => super::sqlite::check_url(url),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => super::amqp::virtual_host(url).map(drop),
        _ => Err(unserved(url)),
    }
}

fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// Why no transport serves this URL.
fn unserved(url: &str) -> Error {
    let error = match scheme(url) {
        "" => Error::new(ErrorKind::InvalidUrl, "the broker URL has no scheme"),
        scheme => Error::new(ErrorKind::UnsupportedTransport, format!("no transport of this build serves {scheme}:")),
    };
    error.field("url", redact(url)).remedy(format!("use one of {}", SCHEMES.join(" ")))
}

/// The URL schemes of this build.
pub const SCHEMES: &[&str] = &[
    #[cfg(feature = "sqlite")]
    "sqlite:path.db",
    #[cfg(feature = "amqp")]
    "amqp://host",
    #[cfg(feature = "amqp")]
    "amqps://host",
    #[cfg(feature = "memory")]
    "memory:",
];

/// The URL with everything between `//` and `@` that follows a `:` replaced, and query values of secrets too.
///
/// Where the `//` was forgotten, or the scheme, everything between the first `:` and the last `@`.
pub fn redact(url: &str) -> String {
    let mut text = url.to_owned();
    let names_a_file = ["sqlite:", "memory:"].iter().any(|scheme| text.starts_with(scheme));
    let start = match text.find("://") {
        Some(at) => Some(at + 3),
        None => (!names_a_file).then_some(0),
    };
    if let Some(start) = start {
        let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
        // A password with a bare `/` or `?` in it breaks the URL, but must not be shown either.
        let at = text[start..end].rfind('@').map(|at| start + at).or_else(|| text.rfind('@').filter(|at| *at > start));
        if let Some(at) = at
            && let Some(colon) = text[start..at].find(':')
        {
            text.replace_range(start + colon + 1..at, "***");
        }
    }
    if let Some((base, query)) = text.split_once('?') {
        let query: Vec<String> = query.split('&').map(hide_secrets).collect();
        text = format!("{base}?{}", query.join("&"));
    }
    text
}

/// A parameter without the value of what is secret by its name, which may stand behind a `?` that should have been a `&`.
fn hide_secrets(pair: &str) -> String {
    let lower = pair.to_ascii_lowercase();
    let secret = ["password", "secret", "token"].iter().filter_map(|word| lower.find(word)).min();
    match secret.and_then(|at| lower[at..].find('=').map(|equals| at + equals)) {
        Some(equals) => format!("{}=***", &pair[..equals]),
        None => pair.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn passwords_do_not_show() {
        assert_eq!(redact("amqp://me:secret@host:5672/v"), "amqp://me:***@host:5672/v");
        assert_eq!(redact("amqp://me:se/cr@et@host"), "amqp://me:***@host");
        assert_eq!(redact("amqp://me@host/"), "amqp://me@host/");
        assert_eq!(redact("amqp://host/v?heartbeat=5?Password=x=y&z=1"), "amqp://host/v?heartbeat=5?Password=***&z=1");
        assert_eq!(redact("amqps://host?keyfile=k&password=x"), "amqps://host?keyfile=k&password=***");
        assert_eq!(redact("sqlite:a.db"), "sqlite:a.db");
        assert_eq!(redact("sqlite:a:b@c.db"), "sqlite:a:b@c.db");
        assert_eq!(redact("me:secret@host:5672"), "me:***@host:5672");
        assert_eq!(redact("me:sec//ret@host"), "me:***@host");
        assert_eq!(redact("amqp:me:secret@host"), "amqp:***@host");
        assert_eq!(redact("amqp:/me:secret@host"), "amqp:***@host");
    }
}

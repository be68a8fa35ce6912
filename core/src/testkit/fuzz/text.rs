//! What people write: URLs and catalogs. Nothing that they write brings a password into an error.

use crate::Result;

const PASSWORD: &str = "Tr0ub4dor3canary";
const SCHEMES: &[&str] = &["amqp", "amqps", "sqlite", "memory", "postgres", "postgresql", "mysql", "mariadb", "x"];

/// URLs of brokers and stores.
pub(super) fn urls(bytes: &[u8]) {
    let (number, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(rest);
    let scheme = SCHEMES[usize::from(*number) % SCHEMES.len()];
    for url in [
        text.to_string(),
        format!("{scheme}:{text}"),
        format!("{scheme}://user:{PASSWORD}@{text}"),
        format!("{scheme}://host/{text}?password={PASSWORD}"),
        format!("{scheme}://{text}?secret={PASSWORD}&{text}"),
    ] {
        hides(crate::transport::carry::url(&url));
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        hides(crate::store::read_url(&url));
        assert!(!crate::transport::registry::redact(&url).contains(PASSWORD), "{url}");
    }
}

/// A catalog, and what a call asks it.
#[cfg(feature = "catalog")]
pub(super) fn catalog(bytes: &[u8]) {
    use std::sync::Arc;

    use crate::catalog::{Catalog, CatalogOptions, EventName, Provider, PublishRequest, SubscribeRequest};

    let text = String::from_utf8_lossy(bytes);
    let (asked, declared) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(name) = asked.parse::<EventName>() {
        assert_eq!(name.as_str(), format!("{}:{}", name.broker(), name.topic()), "{asked:?}");
    }
    hides(Provider::parse(asked));
    hides(PublishRequest::from_json(&text));
    hides(SubscribeRequest::from_json(&text));
    let Ok(declared) = serde_json::from_str(&declared.replace("$PASSWORD", PASSWORD)) else { return };
    let resolver: crate::catalog::SecretResolver =
        Arc::new(|name| name.contains("SECRET").then(|| PASSWORD.to_owned()));
    let options = CatalogOptions { declared: Some(declared), resolver: Some(resolver), ..CatalogOptions::default() };
    match Catalog::open(options) {
        Err(error) => hides(Err::<(), _>(error)),
        Ok(catalog) => {
            hides(catalog.resolve(None, None, asked));
            hides(catalog.resolve(Some("p"), Some("prd"), asked));
        }
    }
}

fn hides<T>(result: Result<T>) {
    if let Err(error) = result {
        let shown = format!("{error} {error:?} {:?} {:?}", error.field_value(), error.remedy_text());
        assert!(!shown.contains(PASSWORD), "the password shows: {shown}");
    }
}

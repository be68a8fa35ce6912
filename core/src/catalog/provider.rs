//! Providers: what a catalog calls a kind of broker, and how its settings become a URL.

use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Result};

/// How long stores that a catalog names keep settled events, in seconds, unless told otherwise: a week.
pub(super) const RETENTION: u64 = 7 * 86_400;

/// A kind of broker, as catalogs name it in `type`, in upper or lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// `memory`: inside the process, for tests.
    Memory,
    /// `sqlite`: a file.
    Sqlite,
    /// `rabbitmq`.
    Rabbitmq,
    /// `kafka`: named, not served.
    Kafka,
    /// `redis`: named, not served.
    Redis,
    /// `google_pubsub`: named, not served.
    GooglePubsub,
    /// `aws_sqs`: named, not served.
    AwsSqs,
    /// `nats`: named, not served.
    Nats,
    /// `azure_servicebus`: named, not served.
    AzureServicebus,
}

/// Every provider with the names that catalogs use for it, the first of them its own.
const NAMES: &[(Provider, &[&str])] = &[
    (Provider::Memory, &["memory"]),
    (Provider::Sqlite, &["sqlite"]),
    (Provider::Rabbitmq, &["rabbitmq"]),
    (Provider::Kafka, &["kafka"]),
    (Provider::Redis, &["redis"]),
    (Provider::GooglePubsub, &["google_pubsub", "google_pub_sub", "pubsub"]),
    (Provider::AwsSqs, &["aws_sqs", "sqs"]),
    (Provider::Nats, &["nats"]),
    (Provider::AzureServicebus, &["azure_servicebus", "azure_service_bus"]),
];

/// Where events of a catalog's broker go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Destination {
    /// May hold a password: never shown.
    pub(super) url: String,
    pub(super) exchange: Option<String>,
    /// The one topic, queue or channel that the settings name for all topics of the broker.
    pub(super) physical: Option<String>,
}

impl Provider {
    /// The provider of this name, in any case, with `-` or `_`.
    pub fn parse(name: &str) -> Result<Self> {
        let wanted = name.trim().to_ascii_lowercase().replace('-', "_");
        NAMES.iter().find(|(_, names)| names.contains(&&*wanted)).map(|(provider, _)| *provider).ok_or_else(|| {
            let known: Vec<_> = NAMES.iter().map(|(_, names)| names[0]).collect();
            Error::new(ErrorKind::ProviderUnsupported, format!("no provider is called {name}"))
                .field("type", name)
                .remedy(format!("use one of {}", known.join(", ")))
        })
    }

    /// Its name: `rabbitmq`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(provider, _)| *provider == self).map_or("", |(_, names)| names[0])
    }

    /// Where the broker with these settings is. `place` names it where it needs a name of its own.
    pub(super) fn destination(self, config: &Map<String, Value>, place: &str, at: &str) -> Result<Destination> {
        let settings = Settings { config, at };
        let url = match self {
            Self::Memory => format!("memory:{place}"),
            Self::Sqlite => settings.sqlite()?,
            Self::Rabbitmq => settings.rabbitmq()?,
            _ => {
                return Err(Error::new(
                    ErrorKind::ProviderUnsupported,
                    format!("{at} is of type {}, which this build does not serve", self.name()),
                )
                .field("type", self.name())
                .remedy("use memory, sqlite or rabbitmq"));
            }
        };
        let first = |names: &[&str]| names.iter().find_map(|name| settings.text(name).transpose()).transpose();
        let physical = match self {
            Self::Rabbitmq => first(&["routingKey", "routing_key", "queue", "topic"])?,
            _ => first(&["topic", "queue", "channel", "topicName"])?,
        };
        Ok(Destination { url, exchange: first(&["exchange"])?, physical })
    }
}

/// The settings of one broker in one environment.
struct Settings<'a> {
    config: &'a Map<String, Value>,
    at: &'a str,
}

impl Settings<'_> {
    fn invalid(&self, name: &str, message: &str, remedy: &str) -> Error {
        Error::new(ErrorKind::CatalogInvalid, format!("{}.{name}: {message}", self.at))
            .field("config", name)
            .remedy(remedy)
    }

    /// A setting that is text or a number; empty text is none.
    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.config.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.invalid(name, "the value is neither text nor a number", "write it as text")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.text(name)?
            .map(|text| {
                text.parse().map_err(|_| self.invalid(name, "the value is not a whole number", "write it in digits"))
            })
            .transpose()
    }

    fn truth(&self, name: &str) -> Result<bool> {
        match self.config.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(Value::Object(_)) => Ok(true),
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(_) => Err(self.invalid(name, "the value is neither true nor false", "write true or false")),
        }
    }

    fn sqlite(&self) -> Result<String> {
        let url = match (self.text("url")?, self.text("path")?) {
            (Some(url), None) if url.starts_with("sqlite:") => url,
            (Some(_), None) => return Err(self.invalid("url", "the URL is not one of sqlite:", "use sqlite:path.db")),
            (Some(_), Some(_)) => return Err(self.invalid("path", "there is a url, too", "give one of them")),
            (None, path) => {
                let path = path.unwrap_or_else(|| "tidings.db".to_owned());
                format!("sqlite:{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
            }
        };
        Ok(with_retention(url, self.number("retention")?))
    }

    /// `{ url }`, or `{ host, port, username, password, vhost, tls }`.
    fn rabbitmq(&self) -> Result<String> {
        if let Some(url) = self.text("url")? {
            if url.starts_with("amqp://") || url.starts_with("amqps://") {
                return Ok(url);
            }
            return Err(self.invalid("url", "the URL is not one of RabbitMQ", "use amqp://host or amqps://host"));
        }
        let Some(host) = self.text("host")? else {
            return Err(self.invalid("url", "there is neither a url nor a host", "give url, or host and port"));
        };
        let tls = self.truth("tls")? || self.truth("ssl")?;
        let encoded =
            |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let user = match (self.text("username")?, self.text("user")?) {
            (Some(user), _) | (None, Some(user)) => {
                format!("{}:{}@", encoded(&user), encoded(&self.text("password")?.unwrap_or_default()))
            }
            (None, None) => String::new(),
        };
        let port = match self.number("port")? {
            Some(port) => format!(
                ":{}",
                u16::try_from(port).map_err(|_| self.invalid("port", "no port has this number", "use 1 to 65535"))?
            ),
            None => String::new(),
        };
        // An IPv6 address has colons of its own.
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        if host.contains(['/', '@', '?', '#', ' ']) {
            return Err(self.invalid(
                "host",
                "the name of the host has a character that no host has",
                "give the name alone",
            ));
        }
        let vhost = match self.text("vhost")? {
            Some(vhost) => Some(vhost),
            None => self.text("virtualHost")?,
        };
        let vhost =
            vhost.filter(|vhost| vhost != "/").map_or_else(String::new, |vhost| format!("/{}", encoded(&vhost)));
        Ok(format!("{}://{user}{host}{port}{vhost}", if tls { "amqps" } else { "amqp" }))
    }
}

/// A store's URL that says how long settled events are kept: as long as it says itself, or is asked for, or a week.
pub(super) fn with_retention(url: String, asked: Option<u64>) -> String {
    if asked.is_none() && url.contains("retention=") {
        return url;
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}retention={}", asked.unwrap_or(RETENTION).min(u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn destination(provider: &str, config: &Value) -> Result<Destination> {
        Provider::parse(provider)?.destination(config.as_object().unwrap(), "p.e.b", "brokers.b.e.config")
    }

    #[test]
    fn both_forms_of_rabbitmq() {
        for (config, url) in [
            (json!({"url": "amqps://u:p@h:5671/v"}), "amqps://u:p@h:5671/v"),
            (json!({"host": "h"}), "amqp://h"),
            (json!({"host": "h", "port": 5672, "username": "u", "password": "p@/ %"}), "amqp://u:p%40%2F%20%25@h:5672"),
            (json!({"host": "h", "port": "5671", "user": "u", "vhost": "a/b", "ssl": true}), "amqps://u:@h:5671/a%2Fb"),
            (json!({"host": "::1", "vhost": "/"}), "amqp://[::1]"),
        ] {
            assert_eq!(destination("RABBITMQ", &config).unwrap().url, url);
        }
        let config = json!({"host": "h", "exchange": "x", "queue": "q", "routingKey": "a.b"});
        let found = destination("RabbitMQ", &config).unwrap();
        assert_eq!((found.exchange.as_deref(), found.physical.as_deref()), (Some("x"), Some("a.b")));
    }

    #[test]
    fn refusals_name_the_setting_and_no_secret() {
        for (provider, config, code, part) in [
            ("rabbitmq", json!({}), "CATALOG_INVALID", "neither a url nor a host"),
            ("rabbitmq", json!({"url": "http://u:hush@h"}), "CATALOG_INVALID", ".url"),
            ("rabbitmq", json!({"host": "h", "port": 99999, "password": "hush"}), "CATALOG_INVALID", ".port"),
            ("rabbitmq", json!({"host": "u:hush@h"}), "CATALOG_INVALID", ".host"),
            ("rabbitmq", json!({"host": ["h"]}), "CATALOG_INVALID", ".host"),
            ("sqlite", json!({"url": "sqlite:a", "path": "b"}), "CATALOG_INVALID", ".path"),
            ("AWS_SQS", json!({"secretAccessKey": "hush"}), "PROVIDER_UNSUPPORTED", "aws_sqs"),
            ("sqs", json!({}), "PROVIDER_UNSUPPORTED", "aws_sqs"),
            ("AZURE_SERVICE_BUS", json!({}), "PROVIDER_UNSUPPORTED", "azure_servicebus"),
            ("carrier-pigeon", json!({}), "PROVIDER_UNSUPPORTED", "carrier-pigeon"),
        ] {
            let error = destination(provider, &config).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn stores_keep_settled_events_for_a_week() {
        assert_eq!(destination("sqlite", &json!({})).unwrap().url, "sqlite:tidings.db?retention=604800");
        assert_eq!(
            destination("sqlite", &json!({"path": "a?.db", "retention": 5})).unwrap().url,
            "sqlite:a%3F.db?retention=5"
        );
        let url = "sqlite:a.db?synchronous=normal&retention=9";
        assert_eq!(destination("sqlite", &json!({"url": url})).unwrap().url, url);
    }
}

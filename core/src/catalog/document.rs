//! What a catalog declares, read from JSON: Tidings' own form, and Ductape's `events.json`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::session::SessionDeclaration;
use crate::{Error, ErrorKind, Result};

/// Keys that an array of brokers may have.
pub(super) const BROKERS: &[&str] = &["brokers", "events", "messageBrokers", "message_brokers"];
/// Everything that a catalog's object may have. What is not known is refused: it would be a typing error without a trace.
const KNOWN: &[&str] = &[
    "$schema",
    "name",
    "description",
    "product_tag",
    "env_slug",
    "default",
    "store",
    "topics",
    "caches",
    "sessions",
    "products",
    "workspace_tag",
    "linked_profile",
];

/// A catalog, understood.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    /// Product that is meant where a call names none.
    pub(super) product: Option<String>,
    /// Environment that is meant where a call names none.
    pub(super) env: Option<String>,
    /// Tag of the broker that a program without any other URL uses.
    pub(super) default: Option<String>,
    /// URL of the store that remembers caches and idempotency keys.
    pub(super) store: Option<String>,
    /// What is declared for any product.
    pub(super) common: Section,
    /// What is declared for one.
    pub(super) products: Vec<(String, Section)>,
}

/// What is declared for a product.
#[derive(Debug, Clone, Default)]
pub(super) struct Section {
    pub(super) brokers: Vec<BrokerDeclaration>,
    pub(super) caches: Vec<CacheDeclaration>,
    pub(super) sessions: Vec<SessionDeclaration>,
}

/// A broker with its environments and topics.
#[derive(Debug, Clone)]
pub(super) struct BrokerDeclaration {
    pub(super) tag: String,
    pub(super) envs: Vec<EnvDeclaration>,
    /// Empty: any topic.
    pub(super) topics: Vec<TopicDeclaration>,
    /// Events that nobody wants are kept for the topic's own subscription.
    pub(super) hold: bool,
}

/// A broker in one environment.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct EnvDeclaration {
    pub(super) slug: String,
    #[serde(rename = "type")]
    pub(super) provider: String,
    #[serde(default)]
    pub(super) config: Map<String, Value>,
}

/// A topic. Its tag is without the broker's.
#[derive(Debug, Clone)]
pub(super) struct TopicDeclaration {
    pub(super) tag: String,
    /// Where its events go, if that is not derived.
    pub(super) routing_key: Option<String>,
}

/// A window in which the same message is published once.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CacheDeclaration {
    pub(super) tag: String,
    /// Milliseconds.
    pub(super) expiry: u64,
}

#[derive(Deserialize)]
struct RawBroker {
    tag: String,
    #[serde(default)]
    envs: Vec<Value>,
    #[serde(default)]
    topics: Vec<Value>,
    #[serde(default = "yes")]
    hold: bool,
}

#[derive(Deserialize)]
struct RawTopic {
    tag: String,
    #[serde(alias = "messageBrokerTag")]
    broker: Option<String>,
    #[serde(alias = "routingKey")]
    routing_key: Option<String>,
}

fn yes() -> bool {
    true
}

pub(super) fn invalid(at: &str, message: impl std::fmt::Display, remedy: &str) -> Error {
    Error::new(ErrorKind::CatalogInvalid, format!("{at}: {message}")).field("catalog", at).remedy(remedy)
}

fn read<T: DeserializeOwned>(value: &Value, at: &str) -> Result<T> {
    // The error says which key is missing or of another type, and repeats no texts.
    T::deserialize(value).map_err(|e| {
        let said = e.to_string();
        let said = if said.contains("string \"") { "a value is of another type than is expected" } else { &said };
        invalid(at, said, "compare it with the guide on catalogs")
    })
}

fn items<'a>(value: Option<&'a Value>, at: &str) -> Result<&'a [Value]> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(invalid(at, "this is not an array", "write a list, [ … ]")),
    }
}

/// A tag or slug as declared: not empty, no white space around it.
fn checked<'a>(tag: &'a str, at: &str) -> Result<&'a str> {
    if tag.is_empty() || tag.trim() != tag || tag.chars().any(char::is_control) {
        return Err(invalid(at, "a tag is empty or has white space around it", "use letters, digits, _ and -"));
    }
    Ok(tag)
}

fn unique<'a>(tags: impl Iterator<Item = &'a str>, at: &str) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for tag in tags {
        if !seen.insert(tag) {
            return Err(invalid(at, format!("{tag} is declared twice"), "keep one of the two"));
        }
    }
    Ok(())
}

impl Document {
    /// Reads an array of brokers (`events.json`) or an object with `brokers`, `topics`, `caches`, `sessions`, `products`.
    pub(super) fn read(value: &Value) -> Result<Self> {
        let map = match value {
            Value::Array(brokers) => {
                return Ok(Self { common: Section::read_brokers(brokers, "brokers")?, ..Self::default() });
            }
            Value::Object(map) => map,
            _ => return Err(invalid("catalog", "this is neither an object nor an array", "begin with { or [")),
        };
        if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str()) && !BROKERS.contains(&key.as_str()))
        {
            let known = [&BROKERS[..1], &KNOWN[3..11]].concat().join(", ");
            return Err(invalid(unknown, "nothing of this name can be declared", &format!("a catalog has {known}")));
        }
        let text = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(invalid(key, "this is not text", "write it in quotes")),
        };
        let mut products = Vec::new();
        for (at, product) in items(map.get("products"), "products")?.iter().enumerate() {
            let place = format!("products[{at}]");
            let Some(map) = product.as_object() else {
                return Err(invalid(&place, "this is not an object", "write { … }"));
            };
            let Some(tag) = map.get("tag").and_then(Value::as_str) else {
                return Err(invalid(&place, "the product has no tag", "give it a tag"));
            };
            products.push((checked(tag, &place)?.to_owned(), Section::read(map, &format!("{place}."))?));
        }
        unique(products.iter().map(|(tag, _)| tag.as_str()), "products")?;
        Ok(Self {
            product: text("product_tag")?,
            env: text("env_slug")?,
            default: text("default")?,
            store: text("store")?,
            common: Section::read(map, "")?,
            products,
        })
    }
}

impl Section {
    fn read(map: &Map<String, Value>, at: &str) -> Result<Self> {
        let mut section = Self::default();
        for key in BROKERS {
            let place = format!("{at}{key}");
            section.brokers.extend(Self::read_brokers(items(map.get(*key), &place)?, &place)?.brokers);
        }
        let place = format!("{at}topics");
        for (n, topic) in items(map.get("topics"), &place)?.iter().enumerate() {
            section.add_topic(topic, &format!("{place}[{n}]"))?;
        }
        let place = format!("{at}caches");
        for (n, cache) in items(map.get("caches"), &place)?.iter().enumerate() {
            section.caches.push(read(cache, &format!("{place}[{n}]"))?);
        }
        unique(section.caches.iter().map(|cache| cache.tag.as_str()), &place)?;
        let place = format!("{at}sessions");
        for (n, session) in items(map.get("sessions"), &place)?.iter().enumerate() {
            section.sessions.push(read(session, &format!("{place}[{n}]"))?);
        }
        unique(section.sessions.iter().map(|session| session.tag.as_str()), &place)?;
        section.check(at)?;
        Ok(section)
    }

    fn read_brokers(brokers: &[Value], at: &str) -> Result<Self> {
        let brokers = brokers.iter().enumerate().map(|(n, broker)| read_broker(broker, &format!("{at}[{n}]")));
        let section = Self { brokers: brokers.collect::<Result<_>>()?, ..Self::default() };
        section.check(at)?;
        Ok(section)
    }

    fn check(&self, at: &str) -> Result<()> {
        unique(self.brokers.iter().map(|broker| broker.tag.as_str()), &format!("{at}brokers"))?;
        self.brokers.iter().try_for_each(|broker| {
            unique(broker.topics.iter().map(|topic| topic.tag.as_str()), &format!("{at}brokers.{}.topics", broker.tag))
        })
    }

    /// A topic that is declared beside the brokers names its broker.
    fn add_topic(&mut self, topic: &Value, at: &str) -> Result<()> {
        let raw: RawTopic = read(topic, at)?;
        let prefix = raw.tag.split_once(':').map(|(broker, _)| broker);
        let Some(owner) = raw.broker.as_deref().or(prefix) else {
            return Err(invalid(at, "the topic does not say of which broker it is", "write its tag as broker:topic"));
        };
        let Some(broker) = self.brokers.iter_mut().find(|broker| broker.tag == owner) else {
            return Err(invalid(
                at,
                format!("the topic is of the broker {owner}, which is not declared"),
                "declare the broker",
            ));
        };
        broker.topics.push(topic_of(&raw, owner, at)?);
        Ok(())
    }
}

fn read_broker(value: &Value, at: &str) -> Result<BrokerDeclaration> {
    let raw: RawBroker = read(value, at)?;
    let tag = checked(&raw.tag, at)?.to_owned();
    if tag.contains(':') {
        return Err(invalid(at, "the tag of a broker has a colon, which ends it in an event's name", "use - or _"));
    }
    let envs = raw.envs.iter().enumerate().map(|(n, env)| {
        let env: EnvDeclaration = read(env, &format!("{at}.envs[{n}]"))?;
        checked(&env.slug, at)?;
        Ok(env)
    });
    let envs: Vec<_> = envs.collect::<Result<_>>()?;
    unique(envs.iter().map(|env| env.slug.as_str()), &format!("{at}.envs"))?;
    let topics = raw.topics.iter().enumerate().map(|(n, topic)| {
        let at = format!("{at}.topics[{n}]");
        // The tag alone is enough.
        let raw = match topic {
            Value::String(tag) => RawTopic { tag: tag.clone(), broker: None, routing_key: None },
            topic => read(topic, &at)?,
        };
        topic_of(&raw, &tag, &at)
    });
    Ok(BrokerDeclaration { topics: topics.collect::<Result<_>>()?, envs, hold: raw.hold, tag })
}

fn topic_of(raw: &RawTopic, broker: &str, at: &str) -> Result<TopicDeclaration> {
    let own = raw.tag.strip_prefix(broker).and_then(|rest| rest.strip_prefix(':'));
    Ok(TopicDeclaration { tag: checked(own.unwrap_or(&raw.tag), at)?.to_owned(), routing_key: raw.routing_key.clone() })
}

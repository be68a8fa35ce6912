//! [`Catalog`]: what is declared, and what a call means by it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::discover::{self, CONFIG_VARIABLE, Found};
use super::document::{BrokerDeclaration, CacheDeclaration, Document, EnvDeclaration, Section};
use super::event_name::EventName;
use super::names;
use super::provider::{Destination, Provider};
use super::secrets::{self, SecretResolver};
use super::session::SessionDeclaration;
use crate::routing::{check_exchange_name, check_routing_key};
use crate::{Error, ErrorKind, Result};

/// Environment variable that names the environment: `prd`.
pub const ENV_VARIABLE: &str = "TIDINGS_ENV";
/// Environment variable that names the product.
pub const PRODUCT_VARIABLE: &str = "TIDINGS_PRODUCT";

/// Declared brokers, topics, environments, caches and sessions. Cheap to clone; clones share what is declared.
///
/// Where nothing was declared anywhere, every event resolves to the embedded default.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    declared: RwLock<Declared>,
    resolver: SecretResolver,
    product: Option<String>,
    env: Option<String>,
}

/// What is declared, as it was written and as it was understood.
#[derive(Clone)]
pub(super) struct Declared {
    /// `None`: there is no catalog.
    pub(super) value: Option<Value>,
    pub(super) document: Document,
    /// Where changes are written.
    pub(super) file: Option<Found>,
}

/// Where a catalog comes from, and what calls that leave it out mean.
#[derive(Default)]
pub struct CatalogOptions {
    /// The catalog itself, as JSON. Wins over every file.
    pub declared: Option<Value>,
    /// The catalog's file. Wins over `TIDINGS_CONFIG` and the files of the working directory.
    pub path: Option<PathBuf>,
    /// Product of calls that name none. Wins over `TIDINGS_PRODUCT` and the file's `product_tag`.
    pub product: Option<String>,
    /// Environment of calls that name none. Wins over `TIDINGS_ENV` and the file's `env_slug`.
    pub env: Option<String>,
    /// Folder to look in; the working directory if `None`.
    pub folder: Option<PathBuf>,
    /// Where values of `${NAME}` and `$Secret{NAME}` come from, and the `TIDINGS_*` variables; the process environment if `None`.
    pub resolver: Option<SecretResolver>,
}

/// What `product_tag`, `env` and `event` of a call mean.
pub struct Resolved {
    /// The product, as the call names it.
    pub product: String,
    /// The environment.
    pub env: String,
    /// The event.
    pub event: EventName,
    /// Kind of the broker; `None`: the embedded default, since there is no catalog.
    pub provider: Option<Provider>,
    /// Exchange that it is published to; `None`: the default one.
    pub exchange: Option<String>,
    /// Routing key that it is published with.
    pub routing_key: String,
    /// Whether events that nobody wants are kept for the topic's own subscription.
    pub hold: bool,
    /// May hold a password.
    pub(super) url: Option<String>,
}

impl Resolved {
    /// Name of the topic's subscription, or of that of a group.
    pub fn subscription(&self, group: Option<&str>) -> String {
        names::subscription(&self.product, &self.env, self.event.broker(), self.event.topic(), group)
    }

    /// The broker's URL without its password; `None`: the embedded default.
    pub fn shown_url(&self) -> Option<String> {
        self.url.as_deref().map(crate::transport::registry::redact)
    }
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolved")
            .field("event", &self.event.as_str())
            .field("env", &self.env)
            .field("product", &self.product)
            .field("url", &self.shown_url())
            .field("routing_key", &self.routing_key)
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// Reads the catalog: the one given, else the file named, else `TIDINGS_CONFIG`, else `tidings.config.json`,
    /// `tidings.config.toml` or `ductape/events.json` in the working directory, else none.
    ///
    /// Errors: `CATALOG_INVALID`, naming the place.
    pub fn open(options: CatalogOptions) -> Result<Self> {
        let resolver: SecretResolver = options.resolver.unwrap_or_else(|| Arc::new(|name| std::env::var(name).ok()));
        let set = |name: &str| resolver(name).filter(|value| !value.is_empty());
        let file = match (&options.declared, options.path) {
            (Some(_), _) => None,
            (None, Some(path)) => Some(Found::File(path)),
            (None, None) => {
                let folder = options.folder.as_deref().unwrap_or(Path::new(""));
                discover::find(folder, set(CONFIG_VARIABLE).as_deref())?
            }
        };
        let value = match (options.declared, &file) {
            (Some(value), _) => Some(value),
            (None, Some(file)) => Some(discover::read(file)?),
            (None, None) => None,
        };
        let document = value.as_ref().map(Document::read).transpose()?.unwrap_or_default();
        let product = options.product.or_else(|| set(PRODUCT_VARIABLE));
        let env = options.env.or_else(|| set(ENV_VARIABLE));
        let declared = RwLock::new(Declared { value, document, file });
        Ok(Self { inner: Arc::new(Inner { declared, resolver, product, env }) })
    }

    /// Whether there is a catalog at all.
    pub fn is_declared(&self) -> bool {
        self.inner.declared.read().value.is_some()
    }

    pub(super) fn declared(&self) -> &RwLock<Declared> {
        &self.inner.declared
    }

    pub(super) fn resolver(&self) -> &SecretResolver {
        &self.inner.resolver
    }

    /// The product that a call means.
    pub(super) fn product(&self, named: Option<&str>) -> Result<String> {
        let named = named.filter(|tag| !tag.is_empty());
        let found = named.map(str::to_owned).or_else(|| self.inner.product.clone());
        found.or_else(|| self.inner.declared.read().document.product.clone()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOption, "no product is named")
                .field("product_tag", "")
                .remedy(format!("give product_tag, or set {PRODUCT_VARIABLE}"))
        })
    }

    /// The environment that a call means.
    pub(super) fn env(&self, named: Option<&str>) -> Result<String> {
        let named = named.filter(|slug| !slug.is_empty());
        let found = named.map(str::to_owned).or_else(|| self.inner.env.clone());
        found.or_else(|| self.inner.declared.read().document.env.clone()).ok_or_else(|| {
            let guard = self.inner.declared.read();
            let slugs = guard.document.slugs();
            let declared = if slugs.is_empty() { String::new() } else { format!(" (declared: {})", slugs.join(", ")) };
            Error::new(ErrorKind::EnvRequired, "no environment is named")
                .field("env", "")
                .remedy(format!("give env{declared}, or set {ENV_VARIABLE}"))
        })
    }

    /// What a call means.
    ///
    /// Errors: `INVALID_EVENT_NAME`, `ENV_REQUIRED`, `PRODUCT_NOT_FOUND`, `BROKER_NOT_FOUND`, `BROKER_ENV_NOT_FOUND`,
    /// `TOPIC_NOT_FOUND`, each listing what is declared; `PROVIDER_UNSUPPORTED`, `SECRET_NOT_FOUND`, `CATALOG_INVALID`.
    pub fn resolve(&self, product: Option<&str>, env: Option<&str>, event: &str) -> Result<Resolved> {
        let event: EventName = event.parse()?;
        let (product, env) = (self.product(product)?, self.env(env)?);
        let declared = self.inner.declared.read();
        if declared.value.is_none() {
            return Resolved {
                product,
                env,
                event,
                provider: None,
                exchange: None,
                routing_key: String::new(),
                hold: true,
                url: None,
            }
            .routed(None, None);
        }
        let section = declared.document.section(&product)?;
        let broker = section.broker(event.broker())?;
        let in_env = broker.env(&env)?;
        let topic = broker.topic(&event)?;
        let (provider, destination) = self.destination(&product, broker, in_env)?;
        let routing_key = topic.and_then(|topic| topic.routing_key.clone());
        Resolved {
            product,
            env,
            event,
            provider: Some(provider),
            exchange: destination.exchange,
            routing_key: String::new(),
            hold: broker.hold,
            url: Some(destination.url),
        }
        .routed(routing_key, destination.physical)
    }

    /// Where a broker is in an environment.
    pub(super) fn destination(
        &self,
        product: &str,
        broker: &BrokerDeclaration,
        env: &EnvDeclaration,
    ) -> Result<(Provider, Destination)> {
        let at = format!("{}.envs.{}.config", broker.tag, env.slug);
        let provider = Provider::parse(&env.provider)?;
        // A provider that is not served says so, whatever its secrets are.
        if !matches!(provider, Provider::Memory | Provider::Sqlite | Provider::Rabbitmq) {
            return provider.destination(&env.config, "", &at).map(|destination| (provider, destination));
        }
        let config = secrets::resolve(&env.config, &at, self.resolver())?;
        let place = names::subscription(product, &env.slug, &broker.tag, "broker", None).replace(':', "_");
        Ok((provider, provider.destination(&config, &place, &at)?))
    }

    /// The URL of a broker in an environment, and the topics that it lists.
    pub(super) fn broker_url(&self, product: &str, env: &str, tag: &str) -> Result<(String, Vec<String>)> {
        let section = self.inner.declared.read().document.section(product)?;
        let broker = section.broker(tag)?;
        let (_, destination) = self.destination(product, broker, broker.env(env)?)?;
        Ok((destination.url, broker.topics.iter().map(|topic| topic.tag.clone()).collect()))
    }

    /// The URL of the catalog's default broker for `TIDINGS_ENV`; `None` if no catalog names one.
    pub(crate) fn default_broker_url(&self) -> Result<Option<String>> {
        let Some(tag) = self.inner.declared.read().document.default.clone() else { return Ok(None) };
        // A catalog without products takes any, none too.
        let product = self.product(None).unwrap_or_default();
        let env = self.env(None)?;
        let section = self.inner.declared.read().document.section(&product)?;
        let broker = section.broker(&tag)?;
        self.destination(&product, broker, broker.env(&env)?).map(|(_, destination)| Some(destination.url))
    }

    /// The URL of the store that remembers caches and idempotency keys, if one is declared.
    pub(super) fn store_url(&self) -> Result<Option<String>> {
        let store = self.inner.declared.read().document.store.clone();
        store.map(|url| secrets::resolve_text(&url, "store", self.resolver())).transpose()
    }

    /// The cache of this tag: how long it remembers, in milliseconds.
    pub(super) fn cache_expiry(&self, product: &str, tag: &str) -> Result<u64> {
        let declared = self.inner.declared.read();
        let caches = declared.document.sections(product).flat_map(|section| &section.caches);
        let caches: Vec<&CacheDeclaration> = caches.collect();
        caches.iter().find(|cache| cache.tag == tag).map(|cache| cache.expiry).ok_or_else(|| {
            not_declared(ErrorKind::CacheNotFound, "cache", tag, caches.iter().map(|cache| cache.tag.as_str()))
        })
    }

    /// The sessions that are declared for a product.
    pub(super) fn sessions(&self, product: &str) -> Vec<SessionDeclaration> {
        let declared = self.inner.declared.read();
        declared.document.sections(product).flat_map(|section| section.sessions.iter().cloned()).collect()
    }

    /// The brokers that are declared for a product.
    pub(super) fn brokers(&self, product: &str) -> Result<Vec<BrokerDeclaration>> {
        let declared = self.inner.declared.read();
        if declared.value.is_none() {
            return Ok(Vec::new());
        }
        Ok(declared.document.section(product)?.brokers)
    }
}

impl std::fmt::Debug for Catalog {
    /// Says what is declared without any of the settings.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let declared = self.inner.declared.read();
        let tags: Vec<_> = declared.document.common.brokers.iter().map(|broker| broker.tag.as_str()).collect();
        f.debug_struct("Catalog")
            .field("declared", &declared.value.is_some())
            .field("brokers", &tags)
            .finish_non_exhaustive()
    }
}

impl Resolved {
    /// Says where it goes: what the topic says, else what the broker's settings say, else `product.env.topic`.
    fn routed(mut self, topic: Option<String>, broker: Option<String>) -> Result<Self> {
        self.routing_key = match (topic, broker) {
            (Some(key), _) => key,
            (None, Some(name)) => names::physical(&name),
            (None, None) => names::destination(&self.product, &self.env, self.event.topic()),
        };
        check_routing_key(&self.routing_key)?;
        self.exchange.as_deref().map_or(Ok(()), check_exchange_name)?;
        Ok(self)
    }
}

impl Document {
    /// What is declared for a product, what holds for any product included.
    pub(super) fn section(&self, product: &str) -> Result<Section> {
        if !self.products.is_empty() && !self.products.iter().any(|(tag, _)| tag == product) {
            let declared = self.products.iter().map(|(tag, _)| tag.as_str());
            return Err(not_declared(ErrorKind::ProductNotFound, "product", product, declared));
        }
        let mut all = Section::default();
        for section in self.sections(product) {
            all.brokers.extend(section.brokers.iter().cloned());
        }
        Ok(all)
    }

    /// The product's own section, then the common one.
    pub(super) fn sections<'a>(&'a self, product: &'a str) -> impl Iterator<Item = &'a Section> {
        let own = self.products.iter().filter(move |(tag, _)| tag == product).map(|(_, section)| section);
        own.chain([&self.common])
    }

    fn slugs(&self) -> Vec<&str> {
        let sections = self.products.iter().map(|(_, section)| section).chain([&self.common]);
        let envs = sections.flat_map(|section| &section.brokers).flat_map(|broker| &broker.envs);
        let mut slugs: Vec<_> = envs.map(|env| env.slug.as_str()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        slugs
    }
}

impl Section {
    pub(super) fn broker(&self, tag: &str) -> Result<&BrokerDeclaration> {
        self.brokers.iter().find(|broker| broker.tag == tag).ok_or_else(|| {
            not_declared(
                ErrorKind::BrokerNotFound,
                "broker",
                tag,
                self.brokers.iter().map(|broker| broker.tag.as_str()),
            )
        })
    }
}

impl BrokerDeclaration {
    pub(super) fn env(&self, slug: &str) -> Result<&EnvDeclaration> {
        self.envs.iter().find(|env| env.slug == slug).ok_or_else(|| {
            let slugs = self.envs.iter().map(|env| env.slug.as_str());
            let error = not_declared(ErrorKind::BrokerEnvNotFound, "env", slug, slugs);
            error.about(&format!("the broker {}", self.tag))
        })
    }

    /// The topic's declaration; `None` if the broker takes any.
    fn topic(&self, event: &EventName) -> Result<Option<&super::document::TopicDeclaration>> {
        let found = self.topics.iter().find(|topic| topic.tag == event.topic());
        if found.is_none() && !self.topics.is_empty() {
            let tags = self.topics.iter().map(|topic| topic.tag.as_str());
            let error = not_declared(ErrorKind::TopicNotFound, "topic", event.topic(), tags);
            return Err(error.about(&format!("the broker {}", self.tag)));
        }
        Ok(found)
    }
}

/// Most names that an error lists.
const LISTED: usize = 20;

/// The error for what a catalog does not declare: it lists what it does.
pub(super) fn not_declared<'a>(
    kind: ErrorKind,
    field: &'static str,
    value: &str,
    declared: impl Iterator<Item = &'a str>,
) -> Error {
    let mut all: Vec<_> = declared.collect();
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    let listed = match (all.is_empty(), more) {
        (true, _) => "none is declared".to_owned(),
        (false, 0) => format!("declared: {}", all.join(", ")),
        (false, more) => format!("declared: {} and {more} others", all.join(", ")),
    };
    Error::new(kind, format!("the catalog declares no such {field}")).field(field, value).remedy(listed)
}

//! Declaring by calls: brokers and topics are created, updated and fetched, in memory or in the catalog's file.

use serde_json::{Map, Value};

use super::catalog::{Catalog, not_declared};
use super::discover::{self, Found};
use super::document::{BROKERS, Document};
use super::file::Locked;
use super::{EventName, secrets};
use crate::{Error, ErrorKind, Result};

/// Lists whose entries an update merges, with what names an entry.
const MERGED: [(&str, &str); 2] = [("envs", "slug"), ("topics", "tag")];

impl Catalog {
    /// Declares a broker: `{ tag, name?, description?, envs: [{ slug, type, config }], topics? }`.
    ///
    /// The same one again changes nothing; another one of its tag is `CATALOG_CONFLICT`.
    pub fn create_broker(&self, product: &str, broker: Value) -> Result<Value> {
        let tag = text(&broker, "tag")?.to_owned();
        self.change(|root| {
            if let Some(old) = find_broker(root, product, &tag)? {
                return same(old, &broker, "broker", &tag);
            }
            brokers(root, product)?.push(broker.clone());
            Ok(broker)
        })
    }

    /// Changes a broker. Environments are merged by slug and topics by tag; everything else is replaced.
    pub fn update_broker(&self, product: &str, tag: &str, patch: Value) -> Result<Value> {
        self.change(|root| {
            let Some(broker) = find_broker(root, product, tag)? else { return Err(self.no_broker(product, tag)) };
            merge(broker, patch, "tag", tag)?;
            Ok(broker.clone())
        })
    }

    /// A broker as it is declared, its literal secrets replaced by `***`.
    pub fn fetch_broker(&self, product: &str, tag: &str) -> Result<Value> {
        let mut root = self.value();
        let found = find_broker(&mut root, product, tag)?.map(|broker| secrets::hidden(broker));
        found.ok_or_else(|| self.no_broker(product, tag))
    }

    /// All brokers of a product as they are declared, their literal secrets replaced by `***`.
    pub fn fetch_brokers(&self, product: &str) -> Result<Vec<Value>> {
        let mut root = self.value();
        let lists = lists(&mut root, product, BROKERS)?;
        Ok(lists.into_iter().flat_map(|list| list.iter().map(secrets::hidden)).collect())
    }

    /// Declares a topic: `{ tag: "broker:topic", name?, description?, routing_key?, sample? }`.
    ///
    /// A broker without topics takes any; one with topics only those.
    pub fn create_topic(&self, product: &str, topic: Value) -> Result<Value> {
        let event = topic_tag(&topic)?;
        self.change(|root| {
            if let Some(old) = find_topic(root, product, &event)? {
                return same(old, &topic, "topic", event.as_str());
            }
            let Some(broker) = find_broker(root, product, event.broker())? else {
                return Err(self.no_broker(product, event.broker()));
            };
            let Some(broker) = broker.as_object_mut() else { return Err(malformed("brokers")) };
            let topics = broker.entry("topics").or_insert_with(|| Value::Array(Vec::new()));
            topics.as_array_mut().ok_or_else(|| malformed("topics"))?.push(topic.clone());
            Ok(topic)
        })
    }

    /// Changes a topic: every key of the patch replaces the one that is there.
    pub fn update_topic(&self, product: &str, tag: &str, patch: Value) -> Result<Value> {
        let event: EventName = tag.parse()?;
        self.change(|root| {
            let Some(topic) = find_topic(root, product, &event)? else { return Err(no_topic(&event)) };
            if topic.is_string() {
                *topic = serde_json::json!({ "tag": event.as_str() });
            }
            let own = topic.get("tag").and_then(Value::as_str).unwrap_or_default().to_owned();
            merge(topic, patch, "tag", &own)?;
            Ok(topic.clone())
        })
    }

    /// A topic, by `broker:topic`.
    pub fn fetch_topic(&self, product: &str, tag: &str) -> Result<Value> {
        let event: EventName = tag.parse()?;
        find_topic(&mut self.value(), product, &event)?.map(|topic| topic.clone()).ok_or_else(|| no_topic(&event))
    }

    /// The topics that are listed for a broker.
    pub fn fetch_topics(&self, product: &str, broker: &str) -> Result<Vec<Value>> {
        let mut root = self.value();
        if find_broker(&mut root, product, broker)?.is_none() {
            return Err(self.no_broker(product, broker));
        }
        Ok(topics(&mut root, product, broker)?.into_iter().map(|topic| topic.clone()).collect())
    }

    fn value(&self) -> Value {
        self.declared().read().value.clone().unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// Changes what is declared, if the result can be understood, and writes it where it came from.
    fn change(&self, change: impl FnOnce(&mut Value) -> Result<Value>) -> Result<Value> {
        let mut declared = self.declared().write();
        let file = declared.file.as_ref().map(writable).transpose()?;
        let locked = file.map(Locked::acquire).transpose()?;
        let mut root = match (&declared.file, &declared.value) {
            // Others may have written meanwhile.
            (Some(found), _) => discover::read(found)?,
            (None, Some(value)) => value.clone(),
            (None, None) => Value::Object(Map::new()),
        };
        let result = change(&mut root)?;
        let document = Document::read(&root)?;
        if let Some(locked) = locked {
            locked.write(&root)?;
        }
        declared.document = document;
        declared.value = Some(root);
        Ok(secrets::hidden(&result))
    }

    fn no_broker(&self, product: &str, tag: &str) -> Error {
        let mut root = self.declared().try_read().and_then(|declared| declared.value.clone()).unwrap_or_default();
        let brokers = lists(&mut root, product, BROKERS).unwrap_or_default();
        let tags: Vec<_> = brokers.into_iter().flatten().filter_map(|b| b.get("tag").and_then(Value::as_str)).collect();
        not_declared(ErrorKind::BrokerNotFound, "broker", tag, tags.into_iter())
    }
}

fn malformed(at: &str) -> Error {
    Error::new(ErrorKind::CatalogInvalid, "this is not what the guide on catalogs describes").field("catalog", at)
}

fn no_topic(event: &EventName) -> Error {
    Error::new(ErrorKind::TopicNotFound, "the catalog declares no such topic")
        .field("topic", event)
        .remedy("create it, or see which there are with fetchAll")
}

/// A JSON file of ours can be written. TOML would lose its comments, and Ductape's files are its own.
fn writable(found: &Found) -> Result<&std::path::Path> {
    let (path, message, remedy) = match found {
        Found::File(path) if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) => {
            return Ok(path);
        }
        Found::File(path) => (path, "a catalog in TOML is not written by calls", "edit it, or use JSON"),
        Found::Ductape(path) => (path, "Ductape's files are only read", "copy it to tidings.config.json"),
    };
    Err(Error::new(ErrorKind::Unsupported, message).field("catalog", path.display()).remedy(remedy))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOption, format!("{key} is missing"))
            .field("declaration", key)
            .remedy("give it as text")
    })
}

fn topic_tag(topic: &Value) -> Result<EventName> {
    let tag = text(topic, "tag")?;
    match topic.get("messageBrokerTag").and_then(Value::as_str) {
        Some(broker) if !tag.contains(':') => format!("{broker}:{tag}").parse(),
        _ => tag.parse(),
    }
}

/// Creating what is there already is no mistake, changing it in passing is.
fn same(old: &Value, new: &Value, what: &'static str, tag: &str) -> Result<Value> {
    if old == new {
        return Ok(old.clone());
    }
    Err(Error::new(ErrorKind::CatalogConflict, format!("the catalog has another {what} of this tag"))
        .field(what, tag)
        .remedy("update it instead"))
}

/// The lists of a product under these keys, its own first, then those of any product.
fn lists<'a>(root: &'a mut Value, product: &str, keys: &[&str]) -> Result<Vec<&'a mut Vec<Value>>> {
    let map = match root {
        Value::Array(brokers) if keys == BROKERS => return Ok(vec![brokers]),
        Value::Object(map) => map,
        _ => return Ok(Vec::new()),
    };
    let (mut own, mut common) = (Vec::new(), Vec::new());
    for (key, value) in map {
        let Value::Array(list) = value else { continue };
        if keys.contains(&key.as_str()) {
            common.push(list);
        } else if key == "products" {
            own = own_lists(list, product, keys)?;
        }
    }
    own.extend(common);
    Ok(own)
}

fn own_lists<'a>(products: &'a mut [Value], product: &str, keys: &[&str]) -> Result<Vec<&'a mut Vec<Value>>> {
    if products.is_empty() {
        return Ok(Vec::new());
    }
    let tags: Vec<_> = products.iter().filter_map(|one| one.get("tag")?.as_str().map(str::to_owned)).collect();
    let found = products.iter_mut().find(|one| one.get("tag").is_some_and(|tag| tag == product));
    let Some(Value::Object(map)) = found else {
        return Err(not_declared(ErrorKind::ProductNotFound, "product", product, tags.iter().map(String::as_str)));
    };
    Ok(map
        .iter_mut()
        .filter(|(key, _)| keys.contains(&key.as_str()))
        .filter_map(|(_, value)| value.as_array_mut())
        .collect())
}

fn find_broker<'a>(root: &'a mut Value, product: &str, tag: &str) -> Result<Option<&'a mut Value>> {
    let all = lists(root, product, BROKERS)?.into_iter().flatten();
    Ok(all.into_iter().find(|broker| broker.get("tag").is_some_and(|own| own == tag)))
}

/// Where a product's new brokers go: where its others are, else `brokers` of its section.
fn brokers<'a>(root: &'a mut Value, product: &str) -> Result<&'a mut Vec<Value>> {
    if root.is_array() {
        return root.as_array_mut().ok_or_else(|| malformed("brokers"));
    }
    // Says so if the product is not declared.
    lists(root, product, BROKERS)?;
    let has_products = root.get("products").and_then(Value::as_array).is_some_and(|products| !products.is_empty());
    let section = if has_products {
        let products = root.get_mut("products").and_then(Value::as_array_mut);
        products.and_then(|all| all.iter_mut().find(|one| one.get("tag").is_some_and(|tag| tag == product)))
    } else {
        Some(root)
    };
    let map = section.and_then(Value::as_object_mut).ok_or_else(|| malformed("products"))?;
    let key = BROKERS.iter().find(|key| map.contains_key(**key)).unwrap_or(&BROKERS[0]);
    let list = map.entry(*key).or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut().ok_or_else(|| malformed(key))
}

/// The topics of a broker: those that it lists, and those beside the brokers that name it.
fn topics<'a>(root: &'a mut Value, product: &str, broker: &str) -> Result<Vec<&'a mut Value>> {
    let beside = |topic: &Value| {
        let tag = topic.get("tag").and_then(Value::as_str).unwrap_or_default();
        let owner = topic.get("broker").or(topic.get("messageBrokerTag")).and_then(Value::as_str);
        owner.or(tag.split_once(':').map(|(owner, _)| owner)) == Some(broker)
    };
    let keys = [BROKERS, &["topics"]].concat();
    let mut found = Vec::new();
    // One walk over everything, since a value cannot be borrowed twice.
    let entries: Vec<&mut Value> = match root {
        Value::Array(brokers) => brokers.iter_mut().collect(),
        root => lists(root, product, &keys)?.into_iter().flatten().collect(),
    };
    for entry in entries {
        if entry.get("envs").is_some() || entry.get("topics").is_some() {
            if entry.get("tag").is_some_and(|tag| tag == broker) {
                found.extend(entry.get_mut("topics").and_then(Value::as_array_mut).into_iter().flatten());
            }
        } else if beside(entry) {
            found.push(entry);
        }
    }
    Ok(found)
}

fn find_topic<'a>(root: &'a mut Value, product: &str, event: &EventName) -> Result<Option<&'a mut Value>> {
    let is_it = |topic: &&mut Value| {
        let tag = topic.as_str().or_else(|| topic.get("tag")?.as_str()).unwrap_or_default();
        tag == event.as_str() || tag == event.topic()
    };
    Ok(topics(root, product, event.broker())?.into_iter().find(is_it))
}

/// Applies a patch. What is shown as `***` in it stays as it was.
fn merge(value: &mut Value, mut patch: Value, key: &str, tag: &str) -> Result<()> {
    secrets::keep_hidden(&mut patch, value);
    let (Some(map), Value::Object(patch)) = (value.as_object_mut(), patch) else { return Err(malformed("patch")) };
    if patch.get(key).is_some_and(|own| own != tag) {
        return Err(Error::new(ErrorKind::InvalidOption, "a tag cannot be changed: events are stored under it")
            .field("tag", tag)
            .remedy("create another one"));
    }
    for (name, new) in patch {
        let by = MERGED.iter().find(|(list, _)| *list == name).map(|(_, by)| *by);
        match (by, map.get_mut(&name), new) {
            (Some(by), Some(Value::Array(old)), Value::Array(new)) => {
                for mut entry in new {
                    match old.iter_mut().find(|one| one.get(by).is_some() && one.get(by) == entry.get(by)) {
                        Some(Value::Object(one)) if entry.is_object() => {
                            let before = Value::Object(one.clone());
                            secrets::keep_hidden(&mut entry, &before);
                            if let Value::Object(entry) = entry {
                                one.extend(entry);
                            }
                        }
                        _ => old.push(entry),
                    }
                }
            }
            (_, _, new) => {
                map.insert(name, new);
            }
        }
    }
    Ok(())
}

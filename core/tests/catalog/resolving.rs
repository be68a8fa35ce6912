use std::collections::HashMap;
use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};
use tidings::catalog::{Catalog, CatalogOptions};

use crate::support::variables;

#[derive(Deserialize)]
struct Vector {
    name: String,
    catalog: Value,
    #[serde(default)]
    environment: HashMap<String, String>,
    call: Call,
    resolved: Option<Expected>,
    error: Option<String>,
    lists: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    product_tag: Option<String>,
    env: Option<String>,
    event: String,
    group: Option<String>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Expected {
    url: Option<String>,
    exchange: Option<String>,
    routing_key: String,
    subscription: String,
}

#[test]
fn vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/catalog.json");
    let vectors: Vec<Vector> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    for vector in vectors {
        let Vector { name, catalog, environment, call, resolved, error, lists } = vector;
        let pairs: Vec<_> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let options = CatalogOptions {
            declared: (!catalog.is_null()).then_some(catalog),
            folder: Some(empty.path().to_owned()),
            resolver: Some(variables(&pairs)),
            ..CatalogOptions::default()
        };
        let found = Catalog::open(options)
            .and_then(|catalog| catalog.resolve(call.product_tag.as_deref(), call.env.as_deref(), &call.event))
            .map(|found| Expected {
                url: found.shown_url(),
                exchange: found.exchange.clone(),
                routing_key: found.routing_key.clone(),
                subscription: found.subscription(call.group.as_deref()),
            });
        match found {
            Ok(found) => assert_eq!(Some(found), resolved, "{name}"),
            Err(found) => {
                assert_eq!(Some(found.code()), error.as_deref(), "{name}: {found}");
                assert!(lists.is_none_or(|part| found.to_string().contains(&part)), "{name}: {found}");
            }
        }
    }
}

fn open(folder: &std::path::Path, pairs: &[(&str, &str)]) -> tidings::Result<Catalog> {
    Catalog::open(CatalogOptions {
        folder: Some(folder.to_owned()),
        resolver: Some(variables(pairs)),
        ..CatalogOptions::default()
    })
}

#[test]
fn files_are_found_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let broker = |catalog: &Catalog| catalog.fetch_brokers("p").unwrap()[0]["tag"].clone();
    assert!(!open(at, &[]).unwrap().is_declared());

    fs::create_dir(at.join("ductape")).unwrap();
    fs::write(at.join("ductape/events.json"), r#"[{"tag": "ductape", "envs": [{"slug": "snd", "type": "MEMORY"}]}]"#)
        .unwrap();
    fs::write(
        at.join("ductape/config.json"),
        r#"{"workspace_tag": "w", "product_tag": "shop", "env_slug": "snd", "linked_profile": "x"}"#,
    )
    .unwrap();
    let catalog = open(at, &[]).unwrap();
    assert_eq!(broker(&catalog), "ductape");
    assert_eq!(catalog.resolve(None, None, "ductape:t").unwrap().product, "shop");

    let toml = "env_slug = \"prd\"\n[[brokers]]\ntag = \"toml\"\n[[brokers.envs]]\nslug = \"prd\"\ntype = \"memory\"\n";
    fs::write(at.join("tidings.config.toml"), toml).unwrap();
    assert_eq!(broker(&open(at, &[]).unwrap()), "toml");

    fs::write(at.join("tidings.config.json"), r#"{"brokers": [{"tag": "json"}]}"#).unwrap();
    assert_eq!(open(at, &[]).unwrap_err().code(), "CATALOG_INVALID");
    fs::remove_file(at.join("tidings.config.toml")).unwrap();
    assert_eq!(broker(&open(at, &[]).unwrap()), "json");

    fs::write(at.join("other.json"), r#"[{"tag": "named"}]"#).unwrap();
    assert_eq!(broker(&open(at, &[("TIDINGS_CONFIG", "other.json")]).unwrap()), "named");
}

#[test]
fn broken_files_are_named_without_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("a.json", "{\"password\": \"hush\""),
        ("a.toml", "password = \"hush\nx"),
        ("b.json", r#"{"brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": {"hush": 1}}]}]}"#),
        ("c.json", r#"{"brokers": [{"tag": "b", "envs": [{"slug": "prd", "type": "memory", "config": "hush"}]}]}"#),
        ("d.json", r#"{"sessions": [{"tag": "s", "verify": {"alg": "HS256", "key": "hush", "leeway": "hush"}}]}"#),
        ("e.json", "\"hush\""),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
        let error = open(folder.path(), &[("TIDINGS_CONFIG", file)]).unwrap_err();
        assert_eq!(error.code(), "CATALOG_INVALID", "{file}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
    let error = open(folder.path(), &[("TIDINGS_CONFIG", "nothing.json")]).unwrap_err();
    assert!(error.to_string().contains("nothing.json"), "{error}");
}

#[test]
fn secrets_do_not_show() {
    let value = json!([{"tag": "b", "envs": [{"slug": "e", "type": "rabbitmq", "config": {"host": "h", "username": "u", "password": "hush"}}]}]);
    let catalog = crate::support::declared(value);
    let resolved = catalog.resolve(Some("p"), Some("e"), "b:t").unwrap();
    let shown =
        format!("{catalog:?} {resolved:?} {} {:?}", catalog.fetch_broker("p", "b").unwrap(), resolved.shown_url());
    assert!(!shown.contains("hush"), "{shown}");
}

use std::fs;

use serde_json::json;
use tidings::catalog::{Catalog, CatalogOptions};

use crate::support::{declared, variables};

fn file(path: &std::path::Path) -> Catalog {
    let resolver = Some(variables(&[]));
    Catalog::open(CatalogOptions { path: Some(path.to_owned()), resolver, ..CatalogOptions::default() }).unwrap()
}

#[test]
fn what_is_created_in_memory_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let options = CatalogOptions {
        folder: Some(folder.path().to_owned()),
        resolver: Some(variables(&[])),
        ..CatalogOptions::default()
    };
    let catalog = Catalog::open(options).unwrap();
    let broker = json!({"tag": "b", "name": "B", "envs": [{"slug": "prd", "type": "memory", "config": {}}]});
    catalog.create_broker("p", broker.clone()).unwrap();
    assert_eq!(catalog.create_broker("p", broker).unwrap()["name"], "B");
    assert_eq!(catalog.create_broker("p", json!({"tag": "b", "envs": []})).unwrap_err().code(), "CATALOG_CONFLICT");

    catalog.resolve(Some("p"), Some("prd"), "b:anything").unwrap();
    catalog.create_topic("p", json!({"name": "T", "messageBrokerTag": "b", "tag": "b:t", "sample": {}})).unwrap();
    assert_eq!(catalog.resolve(Some("p"), Some("prd"), "b:anything").unwrap_err().code(), "TOPIC_NOT_FOUND");
    catalog.resolve(Some("p"), Some("prd"), "b:t").unwrap();

    catalog.update_topic("p", "b:t", json!({"routingKey": "order.new"})).unwrap();
    assert_eq!(catalog.resolve(Some("p"), Some("prd"), "b:t").unwrap().routing_key, "order.new");
    assert_eq!(catalog.fetch_topic("p", "b:t").unwrap()["name"], "T");
    assert_eq!(catalog.fetch_topics("p", "b").unwrap().len(), 1);
    assert_eq!(catalog.fetch_topic("p", "b:u").unwrap_err().code(), "TOPIC_NOT_FOUND");
    assert_eq!(catalog.fetch_broker("p", "c").unwrap_err().code(), "BROKER_NOT_FOUND");
    assert_eq!(catalog.update_broker("p", "c", json!({})).unwrap_err().code(), "BROKER_NOT_FOUND");
}

#[test]
fn an_update_merges_environments_by_slug() {
    let catalog = declared(json!([{"tag": "b", "name": "B", "envs": [
        {"slug": "prd", "type": "rabbitmq", "config": {"url": "amqp://u:hush@h"}},
        {"slug": "snd", "type": "memory", "config": {}},
    ]}]));
    let updated = catalog
        .update_broker(
            "p",
            "b",
            json!({"description": "D", "envs": [{"slug": "snd", "type": "sqlite"}, {"slug": "dev", "type": "memory"}]}),
        )
        .unwrap();
    let types: Vec<_> = updated["envs"].as_array().unwrap().iter().map(|env| env["type"].as_str().unwrap()).collect();
    assert_eq!(
        (types, &updated["name"], &updated["description"]),
        (vec!["rabbitmq", "sqlite", "memory"], &json!("B"), &json!("D"))
    );

    // What was shown without its password can be sent back.
    let mut shown = catalog.fetch_broker("p", "b").unwrap();
    assert_eq!(shown["envs"][0]["config"]["url"], "amqp://u:***@h");
    shown["name"] = json!("C");
    catalog.update_broker("p", "b", shown).unwrap();
    assert_eq!(catalog.resolve(Some("p"), Some("prd"), "b:t").unwrap().shown_url().unwrap(), "amqp://u:***@h");
    let error = catalog.update_broker("p", "b", json!({"tag": "c"})).unwrap_err();
    assert_eq!(error.code(), "INVALID_OPTION");
}

#[test]
fn a_change_that_cannot_be_understood_changes_nothing() {
    let catalog = declared(json!({"brokers": []}));
    for broken in
        [json!({"tag": "a:b", "envs": []}), json!({"tag": "b", "envs": [{"type": "memory"}]}), json!({"name": "x"})]
    {
        assert!(catalog.create_broker("p", broken).is_err());
    }
    assert_eq!(catalog.fetch_brokers("p").unwrap().len(), 0);
}

#[test]
fn a_file_is_written_whole_by_many() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidings.config.json");
    fs::write(&path, r#"{"product_tag": "p", "products": [{"tag": "p"}, {"tag": "q", "brokers": []}]}"#).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let catalog = file(path);
                for n in 0..10 {
                    let envs = json!([{"slug": "prd", "type": "rabbitmq", "config": {"password": "${MQ}"}}]);
                    catalog.create_broker("p", json!({"tag": format!("b{writer}-{n}"), "envs": envs})).unwrap();
                    file(path);
                }
            });
        }
    });
    let catalog = file(&path);
    assert_eq!(catalog.fetch_brokers("p").unwrap().len(), 40);
    assert_eq!(catalog.fetch_brokers("q").unwrap().len(), 0);
    assert!(fs::read_to_string(&path).unwrap().contains("${MQ}"));
    assert_eq!(catalog.create_broker("r", json!({"tag": "b", "envs": []})).unwrap_err().code(), "PRODUCT_NOT_FOUND");
}

#[test]
fn files_that_are_not_ours_are_only_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidings.config.toml");
    fs::write(&path, "# kept\n").unwrap();
    assert_eq!(file(&path).create_broker("p", json!({"tag": "b", "envs": []})).unwrap_err().code(), "UNSUPPORTED");
    assert_eq!(fs::read_to_string(&path).unwrap(), "# kept\n");
}

//! `tidings outbox`, on a SQLite file.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use serde_json::Value;
use support::{World, runtime};
use tidings::DomainEvent;
use tidings::outbox::{Outbox, Tables};

fn write(store: &str, table: &str, events: Vec<DomainEvent>) {
    runtime().block_on(async {
        let outbox = Outbox::connect_to(store, Tables::new(table).unwrap()).await.unwrap();
        outbox.publish(events).await.unwrap();
        outbox.close().await.unwrap();
    });
}

fn event(id: &str, words: &str) -> DomainEvent {
    DomainEvent::new("order.placed", &serde_json::json!({"words": words})).unwrap().with_id(id).unwrap().with_key("k")
}

fn stop(mut child: std::process::Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_life_of_an_outbox() {
    let world = World::sqlite();
    let file = world.folder.path().join("app.db");
    let (store, table) = (&*format!("sqlite:{}", file.display()), "orders");
    let place = ["--store", store, "--table", table];
    let with = |words: &[&'static str]| -> Vec<&str> { [&["outbox"], words, place.as_slice()].concat() };
    world.run(&with(&["install"])).ok();
    world.run(&with(&["install"])).ok();
    world.run(&["subscribe", "all", "--bind", "#", "--timeout", "10ms"]).ok();
    write(store, table, vec![event("1", "short"), event("2", &"x".repeat(1000))]);
    let status: Value = serde_json::from_str(&world.run(&with(&["status", "--json"])).ok()).unwrap();
    assert_eq!((&status["pending"], &status["failed"]), (&2.into(), &0.into()), "{status}");
    let relay = world.command(&with(&["relay", "--poll-interval", "50ms"])).spawn().unwrap();
    world.run(&with(&["drain"])).ok();
    stop(relay);
    let published = world.run(&["subscribe", "all", "--limit", "2", "--json"]).ok();
    assert_eq!(published.lines().count(), 2, "{published}");
    assert!(world.run(&with(&["status"])).ok().starts_with("pending 0, failed 0"));
    let sound = world.run(&[&["doctor"], place.as_slice()].concat()).ok();
    assert!(sound.contains("outbox"), "{sound}");
    // An event that no broker takes is given up on at its last try.
    write(store, table, vec![event("3", "short"), DomainEvent::new("a.b", &1).unwrap().with_id("4").unwrap()]);
    let program = rusqlite::Connection::open(&file).unwrap();
    program.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(program.execute("UPDATE orders SET body = x'00' WHERE event_id = '3'", []).unwrap(), 1);
    drop(program);
    let relay = world.command(&with(&["relay", "--poll-interval", "50ms"])).spawn().unwrap();
    world.run(&with(&["drain"])).ok();
    stop(relay);
    let failed: Value = serde_json::from_str(&world.run(&with(&["failed", "--json"])).ok()).unwrap();
    assert_eq!(failed["id"], "3", "{failed}");
    assert!(world.run(&[&["doctor"], place.as_slice()].concat()).ok().contains("given up on"));
    assert_eq!(world.run(&with(&["retry", "--all"])).ok(), "1 retried\n");
    let relay = world.command(&with(&["relay", "--poll-interval", "50ms"])).spawn().unwrap();
    world.run(&with(&["drain"])).ok();
    stop(relay);
    world.run(&with(&["discard", "--all"])).fails(6, "no terminal");
    assert_eq!(world.run(&with(&["discard", "--all", "--yes"])).ok(), "1 discarded\n");
    assert!(world.run(&with(&["status"])).ok().starts_with("pending 0, failed 0"));
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let world = World::sqlite();
    let file = world.folder.path().join("none.db");
    let store = format!("sqlite:{}", file.display());
    world.run(&["outbox", "status", "--store", &store]).fails(3, "no store of this name");
    assert!(!file.exists());
    world.run(&["outbox", "status"]).fails(2, "TIDINGS_STORE_URL");
    world.run(&["doctor", "--store", &store]).fails(7, "");
}

#[test]
fn the_tables_are_printed_for_every_database() {
    let world = World::sqlite();
    for (dialect, quoted) in [("postgres", "\"mine\""), ("mysql", "`mine`"), ("sqlite", "\"mine\"")] {
        let script = world.run(&["outbox", "sql", "--dialect", dialect, "--table", "mine"]).ok();
        assert!(script.contains(&format!("CREATE TABLE {quoted} (")), "{script}");
    }
    let inbox = world.run(&["outbox", "sql", "--dialect", "sqlite", "--inbox"]).ok();
    assert!(inbox.contains("CREATE TABLE \"tidings_inbox\" ("), "{inbox}");
}

#[test]
fn the_inbox_has_a_version_of_its_own_and_doctor_names_it() {
    let world = World::sqlite();
    let file = world.folder.path().join("app.db");
    let store = &*format!("sqlite:{}", file.display());
    world.run(&["subscribe", "all", "--bind", "#", "--timeout", "10ms"]).ok();
    world.run(&["outbox", "install", "--store", store]).ok();
    for table in [&[][..], &["--table", "mine"]] {
        for _ in 0..2 {
            world.run(&[&["outbox", "install", "--inbox", "--store", store], table].concat()).ok();
        }
    }
    let sound = world.run(&["doctor", "--store", store]).ok();
    assert!(sound.contains("tidings_inbox") && sound.contains("mine"), "{sound}");
    let program = rusqlite::Connection::open(&file).unwrap();
    let newer = "UPDATE tidings_schema SET version = 99 WHERE component = 'inbox:mine'";
    assert_eq!(program.execute(newer, []).unwrap(), 1);
    drop(program);
    let found = world.run(&["doctor", "--store", store]);
    assert!(found.code == Some(7) && found.out.contains("inbox mine: SCHEMA_TOO_NEW"), "{found:?}");
    world.run(&["outbox", "install", "--inbox", "--table", "mine", "--store", store]).fails(1, "SCHEMA_TOO_NEW");
    world.run(&["outbox", "install", "--inbox", "--store", store]).ok();
}

#[test]
fn passwords_of_stores_are_not_shown() {
    let url = format!("postgres://me:{}@127.0.0.1:1/app", support::CANARY);
    for json in [&[][..], &["--json"]] {
        let ran = World::sqlite().run(&[&["outbox", "status", "--store", &url], json].concat());
        ran.fails(3, "CONNECTION_FAILED");
    }
}

//! Commit, rollback and claims, on a real PostgreSQL.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../tests/conformance/outbox/place.rs"]
mod place;

use tidings::outbox::Dialect;

use crate::place::{Place, events};

#[tokio::test]
async fn events_are_there_if_and_only_if_the_transaction_commits() {
    let Ok(url) = std::env::var("DATABASE_URL") else { return println!("SKIPPED: DATABASE_URL is not set") };
    let place = Place::open(&url, Dialect::Postgres).await;
    let (name, inbox, writer) = (&place.name, &place.inbox, place.writer.clone().serialize(true).notify(true));
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&inbox.schema()).await.unwrap();
    let tx = client.transaction().await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &events(1)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(place.pending().await, 0);
    let tx = client.transaction().await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &events(1)).await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &events(2)).await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &[]).await.unwrap();
    assert!(tidings_tokio_postgres::claim(inbox, &tx, "s", events(1)[0].event()).await.unwrap());
    assert!(!tidings_tokio_postgres::claim(inbox, &tx, "s", events(1)[0].event()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(place.pending().await, 4);
    place.outbox.close().await.unwrap();
    client.batch_execute(&format!("DROP VIEW {name}_status; DROP TABLE {name}, {name}_part, {name}_relay, {name}_in; DELETE FROM tidings_schema WHERE component IN ('outbox:{name}', 'inbox:{name}_in')")).await.unwrap();
}

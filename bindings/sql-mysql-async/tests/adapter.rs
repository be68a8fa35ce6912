//! Commit, rollback and claims, on a real MariaDB.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../tests/conformance/outbox/place.rs"]
mod place;

use mysql_async::TxOpts;
use mysql_async::prelude::Queryable as _;
use tidings::outbox::Dialect;

use crate::place::{Place, events};

#[tokio::test]
async fn events_are_there_if_and_only_if_the_transaction_commits() {
    let Ok(url) = std::env::var("MYSQL_URL") else { return println!("SKIPPED: MYSQL_URL is not set") };
    let place = Place::open(&url, Dialect::MySql).await;
    let (name, inbox, writer) = (&place.name, &place.inbox, place.writer.clone().serialize(true));
    let mut connection = mysql_async::Conn::from_url(&url).await.unwrap();
    for statement in inbox.schema().split(";\n").filter(|sql| !sql.trim().is_empty()) {
        connection.query_drop(statement).await.unwrap();
    }
    let mut tx = connection.start_transaction(TxOpts::default()).await.unwrap();
    tidings_mysql_async::add(&writer, &mut tx, &events(1)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(place.pending().await, 0);
    let mut tx = connection.start_transaction(TxOpts::default()).await.unwrap();
    tidings_mysql_async::add(&writer, &mut tx, &events(1)).await.unwrap();
    tidings_mysql_async::add(&writer, &mut tx, &events(2)).await.unwrap();
    tidings_mysql_async::add(&writer, &mut tx, &[]).await.unwrap();
    assert!(tidings_mysql_async::claim(inbox, &mut tx, "s", events(1)[0].event()).await.unwrap());
    assert!(!tidings_mysql_async::claim(inbox, &mut tx, "s", events(1)[0].event()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(place.pending().await, 4);
    place.outbox.close().await.unwrap();
    for suffix in ["", "_part", "_relay", "_lock", "_in"] {
        connection.query_drop(format!("DROP TABLE {name}{suffix}")).await.unwrap();
    }
    connection.query_drop(format!("DROP VIEW {name}_status")).await.unwrap();
    let rows = format!("DELETE FROM tidings_schema WHERE component IN ('outbox:{name}', 'inbox:{name}_in')");
    connection.query_drop(rows).await.unwrap();
    connection.disconnect().await.unwrap();
}

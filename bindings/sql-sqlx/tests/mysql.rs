//! Commit, rollback and claims, on a real MariaDB.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../tests/conformance/outbox/place.rs"]
mod place;

use sqlx::AssertSqlSafe;
use tidings::outbox::Dialect;

use crate::place::{Place, events};

#[tokio::test]
async fn events_are_there_if_and_only_if_the_transaction_commits() {
    let Ok(url) = std::env::var("MYSQL_URL") else { return println!("SKIPPED: MYSQL_URL is not set") };
    let place = Place::open(&url, Dialect::MySql).await;
    let (name, inbox, writer) = (&place.name, &place.inbox, place.writer.clone().serialize(true));
    let pool = sqlx::MySqlPool::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(inbox.schema())).execute(&pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &events(1)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(place.pending().await, 0);
    let mut tx = pool.begin().await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &events(1)).await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &events(2)).await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &[]).await.unwrap();
    assert!(tidings_sqlx::mysql::claim(inbox, &mut tx, "s", events(1)[0].event()).await.unwrap());
    assert!(!tidings_sqlx::mysql::claim(inbox, &mut tx, "s", events(1)[0].event()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(place.pending().await, 4);
    place.outbox.close().await.unwrap();
    let sql = format!(
        "DROP VIEW {name}_status; DROP TABLE {name}, {name}_part, {name}_relay, {name}_lock, {name}_in; DELETE FROM tidings_schema WHERE component IN ('outbox:{name}', 'inbox:{name}_in')"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
}

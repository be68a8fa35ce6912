//! Commit, rollback and claims, on a real MariaDB.
#![allow(missing_docs, clippy::unwrap_used)]

use sqlx::AssertSqlSafe;
use tidings::DomainEvent;
use tidings::inbox::InboxWriter;
use tidings::outbox::{Dialect, Outbox, OutboxEvent, OutboxWriter, Tables};

fn events(first: usize) -> Vec<OutboxEvent> {
    let plain = DomainEvent::new("a.b", &"Zoë\0").unwrap().with_id(&format!("{first}")).unwrap();
    let full =
        plain.clone().with_id(&format!("{first}b")).unwrap().with_key("k").with_tenant("t").with_header("h", "ü");
    let later = tidings::Timestamp::from_micros(4_000_000_000_000_000);
    // Nulls and values in one statement.
    vec![plain.into(), OutboxEvent::new(full).exchange("elsewhere").available_at(later)]
}

async fn pending(outbox: &Outbox) -> u64 {
    outbox.status().await.unwrap().pending
}

#[tokio::test]
async fn events_are_there_if_and_only_if_the_transaction_commits() {
    let Ok(url) = std::env::var("MYSQL_URL") else { return println!("SKIPPED: MYSQL_URL is not set") };
    let name = format!("rs_{}", &tidings::event::new_id()[24..]);
    let tables = Tables::new(&name).unwrap();
    let outbox = Outbox::connect_to(&url, tables.clone()).await.unwrap();
    outbox.install().await.unwrap();
    let writer = OutboxWriter::new(Dialect::MySql).tables(tables).serialize(true);
    let inbox = InboxWriter::new(Dialect::MySql).table(&format!("{name}_in")).unwrap();
    let pool = sqlx::MySqlPool::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(inbox.schema())).execute(&pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &events(1)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(pending(&outbox).await, 0);
    let mut tx = pool.begin().await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &events(1)).await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &events(2)).await.unwrap();
    tidings_sqlx::mysql::add(&writer, &mut tx, &[]).await.unwrap();
    assert!(tidings_sqlx::mysql::claim(&inbox, &mut tx, "s", events(1)[0].event()).await.unwrap());
    assert!(!tidings_sqlx::mysql::claim(&inbox, &mut tx, "s", events(1)[0].event()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(pending(&outbox).await, 4);
    outbox.close().await.unwrap();
    let sql = format!(
        "DROP VIEW {name}_status; DROP TABLE {name}, {name}_part, {name}_relay, {name}_lock, {name}_in; DELETE FROM tidings_schema WHERE component IN ('outbox:{name}', 'inbox:{name}_in')"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
}

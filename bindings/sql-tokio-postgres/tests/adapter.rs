//! Commit, rollback and claims, on a real PostgreSQL.
#![allow(missing_docs, clippy::unwrap_used)]

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
    let Ok(url) = std::env::var("DATABASE_URL") else { return println!("SKIPPED: DATABASE_URL is not set") };
    let name = format!("rs_{}", &tidings::event::new_id()[24..]);
    let tables = Tables::new(&name).unwrap();
    let outbox = Outbox::connect_to(&url, tables.clone()).await.unwrap();
    outbox.install().await.unwrap();
    let writer = OutboxWriter::new(Dialect::Postgres).tables(tables).serialize(true).notify(true);
    let inbox = InboxWriter::new(Dialect::Postgres).table(&format!("{name}_in")).unwrap();
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&inbox.schema()).await.unwrap();
    let tx = client.transaction().await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &events(1)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(pending(&outbox).await, 0);
    let tx = client.transaction().await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &events(1)).await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &events(2)).await.unwrap();
    tidings_tokio_postgres::add(&writer, &tx, &[]).await.unwrap();
    assert!(tidings_tokio_postgres::claim(&inbox, &tx, "s", events(1)[0].event()).await.unwrap());
    assert!(!tidings_tokio_postgres::claim(&inbox, &tx, "s", events(1)[0].event()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(pending(&outbox).await, 4);
    outbox.close().await.unwrap();
    client.batch_execute(&format!("DROP VIEW {name}_status; DROP TABLE {name}, {name}_part, {name}_relay, {name}_in; DELETE FROM tidings_schema WHERE component IN ('outbox:{name}', 'inbox:{name}_in')")).await.unwrap();
}

//! Commit, rollback and claims, on a real file.
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
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let outbox =
        Outbox::connect_to(&format!("sqlite:{}?shared=true", file.display()), Tables::default()).await.unwrap();
    outbox.install().await.unwrap();
    let (writer, inbox) = (OutboxWriter::new(Dialect::Sqlite), InboxWriter::new(Dialect::Sqlite));
    let mut connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch(&inbox.schema()).unwrap();
    let tx = connection.transaction().unwrap();
    tidings_rusqlite::add(&writer, &tx, &events(1)).unwrap();
    tx.rollback().unwrap();
    assert_eq!(pending(&outbox).await, 0);
    let tx = connection.transaction().unwrap();
    tidings_rusqlite::add(&writer, &tx, &events(1)).unwrap();
    tidings_rusqlite::add(&writer, &tx, &[]).unwrap();
    assert!(tidings_rusqlite::claim(&inbox, &tx, "s", events(1)[0].event()).unwrap());
    assert!(!tidings_rusqlite::claim(&inbox, &tx, "s", events(1)[0].event()).unwrap());
    tx.commit().unwrap();
    assert_eq!(pending(&outbox).await, 2);
    outbox.close().await.unwrap();
}

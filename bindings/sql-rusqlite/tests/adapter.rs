//! Commit, rollback and claims, on a real file.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../tests/conformance/outbox/place.rs"]
mod place;

use tidings::outbox::Dialect;

use crate::place::{Place, events};

#[tokio::test]
async fn events_are_there_if_and_only_if_the_transaction_commits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let place = Place::open(&format!("sqlite:{}?shared=true", file.display()), Dialect::Sqlite).await;
    let (writer, inbox) = (&place.writer, &place.inbox);
    let mut connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch(&inbox.schema()).unwrap();
    let tx = connection.transaction().unwrap();
    tidings_rusqlite::add(writer, &tx, &events(1)).unwrap();
    tx.rollback().unwrap();
    assert_eq!(place.pending().await, 0);
    let tx = connection.transaction().unwrap();
    tidings_rusqlite::add(writer, &tx, &events(1)).unwrap();
    tidings_rusqlite::add(writer, &tx, &[]).unwrap();
    assert!(tidings_rusqlite::claim(inbox, &tx, "s", events(1)[0].event()).unwrap());
    assert!(!tidings_rusqlite::claim(inbox, &tx, "s", events(1)[0].event()).unwrap());
    tx.commit().unwrap();
    assert_eq!(place.pending().await, 2);
    let count = format!("SELECT count(*) FROM {}", place.name);
    assert_eq!(connection.query_row(&count, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    place.outbox.close().await.unwrap();
}

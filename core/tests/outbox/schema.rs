//! The tables and their versions.

use std::time::Duration;

use tidings::DomainEvent;
use tidings::doctor::{Examination, Finding, Level};
use tidings::inbox::{Inbox, InboxWriter};

use crate::database::databases;

#[tokio::test(flavor = "multi_thread")]
async fn any_number_may_install_at_once() {
    for database in databases().await {
        let mut installing = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let outbox = database.another().await;
            installing.spawn(async move { outbox.install().await });
        }
        while let Some(installed) = installing.join_next().await {
            installed.unwrap().unwrap();
        }
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_is_refused() {
    for mut database in databases().await {
        let component = format!("outbox:{}", database.tables.name());
        database.begin("v").await;
        let newer = format!("UPDATE tidings_schema SET version = 99 WHERE component = '{component}'");
        database.sql("v", &newer).await.unwrap();
        database.commit("v").await;
        assert_eq!(database.outbox.install().await.unwrap_err().code(), "SCHEMA_TOO_NEW");
        let broker = tidings::Broker::connect("memory:").await.unwrap();
        assert_eq!(database.outbox.relay(&broker).start().await.unwrap_err().code(), "SCHEMA_TOO_NEW");
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_has_a_version_of_its_own() {
    for mut database in databases().await {
        let table = format!("{}_in", database.tables.name());
        let inbox = Inbox::connect(&database.url, &table).await.unwrap();
        assert_eq!(inbox.check().await.unwrap_err().code(), "INVALID_OPTION", "it is not there");
        for _ in 0..2 {
            inbox.install().await.unwrap();
        }
        inbox.check().await.unwrap();
        let claim = |key: &str| {
            let event = DomainEvent::new("a.b", &1).unwrap().with_idempotency_key(key);
            let writer = InboxWriter::new(database.dialect).table(&table).unwrap();
            writer.claim(database.dialect.default_style(), "s", &event).unwrap()
        };
        let claims: Vec<_> = (0..3).map(|n| claim(&n.to_string())).collect();
        database.begin("a").await;
        for claim in &claims {
            assert_eq!(database.change("a", claim).await.unwrap(), 1);
        }
        database.commit("a").await;
        assert_eq!(inbox.forget(Duration::from_secs(3600)).await.unwrap(), 0);
        // Older than now: not yet within the same tick of the clock.
        let mut forgotten = 0;
        while forgotten < 3 {
            forgotten += inbox.forget(Duration::ZERO).await.unwrap();
        }
        let url = database.url.clone();
        let sound = Examination::of("memory:").store(&url, database.tables.clone()).run().await;
        assert!(sound.findings.iter().any(|finding| finding.subject.contains(&table)), "{sound:?}");
        let component = format!("inbox:{table}");
        database.begin("v").await;
        let newer = format!("UPDATE tidings_schema SET version = 99 WHERE component = '{component}'");
        database.sql("v", &newer).await.unwrap();
        database.commit("v").await;
        assert_eq!(inbox.check().await.unwrap_err().code(), "SCHEMA_TOO_NEW");
        assert_eq!(inbox.install().await.unwrap_err().code(), "SCHEMA_TOO_NEW");
        let found = Examination::of("memory:").store(&url, database.tables.clone()).run().await;
        let named = |finding: &Finding| finding.level == Level::Problem && finding.subject.contains(&table);
        assert!(found.findings.iter().any(named), "{found:?}");
        inbox.close().await.unwrap();
        crate::inbox::remove(database).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_there_are_an_error_that_says_so() {
    for database in databases().await {
        let tables = tidings::outbox::Tables::new("tidings_no_such_table").unwrap();
        let outbox = tidings::outbox::Outbox::connect_to(&database.url, tables).await.unwrap();
        let broker = tidings::Broker::connect("memory:").await.unwrap();
        let error = outbox.relay(&broker).start().await.unwrap_err();
        assert_eq!(error.code(), "INVALID_OPTION");
        assert!(error.remedy_text().unwrap().contains("install"), "{error}");
        database.remove().await;
    }
}

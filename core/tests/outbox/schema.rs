//! The tables and their versions.

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

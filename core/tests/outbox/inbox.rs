//! The inbox on each database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidings::inbox::{InboxWriter, Transactions};
use tidings::outbox::{Dialect, ParamStyle};
use tidings::{BoxError, Broker, DomainEvent, Retry};
use tokio_postgres::Client;

use crate::database::{Database, databases};

fn event(id: &str) -> DomainEvent {
    DomainEvent::new("test.event", &json!({})).unwrap().with_id(id).unwrap()
}

async fn install(database: &mut Database) -> InboxWriter {
    let inbox = InboxWriter::new(database.dialect).table(&format!("{}_in", database.tables.name())).unwrap();
    database.begin("schema").await;
    for statement in inbox.schema().split(";\n").filter(|sql| !sql.trim().is_empty()) {
        database.sql("schema", statement).await.unwrap();
    }
    database.commit("schema").await;
    inbox
}

pub(crate) async fn remove(mut database: Database) {
    let table = database.table();
    let (head, quote) = table.split_at(table.len() - 1);
    let sql = format!("DROP TABLE {head}_in{quote}");
    database.begin("schema").await;
    database.sql("schema", &sql).await.unwrap();
    let component = format!("inbox:{}_in", database.tables.name());
    let sql = format!("DELETE FROM tidings_schema WHERE component = '{component}'");
    database.sql("schema", &sql).await.unwrap();
    database.commit("schema").await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_claimed_once() {
    for mut database in databases().await {
        let inbox = install(&mut database).await;
        let style = database.dialect.default_style();
        let claim = |subscription: &str, event: DomainEvent| inbox.claim(style, subscription, &event).unwrap();
        database.begin("a").await;
        assert_eq!(database.change("a", &claim("s", event("1"))).await.unwrap(), 1);
        database.rollback("a").await;
        database.begin("a").await;
        assert_eq!(database.change("a", &claim("s", event("1"))).await.unwrap(), 1, "rolled back");
        let again = claim("s", event("1"));
        if database.dialect == Dialect::Sqlite {
            // It has one writer at a time, so the second transaction begins after the first.
            database.commit("a").await;
            database.begin("b").await;
            assert_eq!(database.change("b", &again).await.unwrap(), 0, "it was processed");
        } else {
            database.begin("b").await;
            let mut second = std::pin::pin!(database.change("b", &again));
            let waits = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
            assert!(waits.is_err(), "the second waits for the first");
            database.commit("a").await;
            assert_eq!(second.await.unwrap(), 0, "it was processed");
        }
        let nul = event("n\u{0}");
        let others = [
            ("t", event("1")),
            ("s", event("1").with_tenant("x")),
            ("s", event("2").with_idempotency_key("1 ")),
            ("s", nul.clone()),
            ("s", event("n\u{1}0")),
            ("S", event("1")),
        ];
        for (subscription, other) in others {
            assert_eq!(
                database.change("b", &claim(subscription, other.clone())).await.unwrap(),
                1,
                "{subscription} {other:?}"
            );
        }
        assert_eq!(database.change("b", &claim("s", nul)).await.unwrap(), 0);
        assert_eq!(database.change("b", &claim("s", event("3").with_idempotency_key("1"))).await.unwrap(), 0);
        database.commit("b").await;
        database.begin("c").await;
        let kept = inbox.forget(style, Duration::from_secs(3600), 100);
        assert_eq!(database.change("c", &kept).await.unwrap(), 0);
        assert_eq!(database.change("c", &inbox.forget(style, Duration::ZERO, 3)).await.unwrap(), 3);
        assert_eq!(database.change("c", &inbox.forget(style, Duration::ZERO, 100)).await.unwrap(), 4);
        database.commit("c").await;
        remove(database).await;
    }
}

#[test]
fn keys_that_no_column_holds_are_refused() {
    let inbox = InboxWriter::new(Dialect::MySql);
    let long = event("1").with_idempotency_key("x".repeat(256));
    assert_eq!(inbox.claim(ParamStyle::Question, "s", &long).unwrap_err().code(), "INVALID_HEADER");
    assert_eq!(inbox.claim(ParamStyle::Question, "s-dl", &event("1")).unwrap_err().code(), "INVALID_NAME");
}

/// Transactions of a program with a connection for each.
struct Program {
    url: String,
    inbox: InboxWriter,
    /// Begins that fail before the first that works.
    outage: AtomicU32,
}

#[async_trait]
impl Transactions for Program {
    type Tx = Client;

    async fn begin(&self) -> Result<Client, BoxError> {
        if self.outage.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err("the database is away".into());
        }
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("BEGIN").await?;
        Ok(client)
    }

    async fn claim(&self, tx: &mut Client, subscription: &str, event: &DomainEvent) -> Result<bool, BoxError> {
        let claim = self.inbox.claim(ParamStyle::Dollar, subscription, event)?;
        let texts: Vec<&str> = claim
            .params
            .iter()
            .map(|value| match value {
                tidings::outbox::Value::Text(text) => text.as_str(),
                _ => unreachable!("a claim has texts"),
            })
            .collect();
        Ok(tx.execute(&claim.sql, &[&texts[0], &texts[1], &texts[2]]).await? == 1)
    }

    async fn commit(&self, tx: Client) -> Result<(), BoxError> {
        Ok(tx.batch_execute("COMMIT").await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_run_in_a_transaction_with_their_claim() {
    let mut database = match Database::postgres().await {
        Ok(database) => database,
        Err(error) => return println!("SKIPPED: no PostgreSQL: {error}"),
    };
    let inbox = install(&mut database).await;
    let table = database.table();
    let (head, quote) = table.split_at(table.len() - 1);
    let effects = format!("{head}_fx{quote}");
    database.begin("schema").await;
    database.sql("schema", &format!("CREATE TABLE {effects} (id text)")).await.unwrap();
    database.commit("schema").await;
    let broker = Broker::connect("memory:").await.unwrap();
    let subscriber = broker.subscriber();
    let program = Program { url: database.url.clone(), inbox, outage: AtomicU32::new(2) };
    let (tries, insert) = (Arc::new(AtomicU32::new(0)), format!("INSERT INTO {effects} VALUES ($1)"));
    let counted = tries.clone();
    let building = subscriber.subscription("s").bind("#").max_retries(1);
    building
        .handle_in(program, move |event, tx: Client| {
            let (counted, insert) = (counted.clone(), insert.clone());
            async move {
                tx.execute(&insert, &[&event.id()]).await?;
                // The first try of the second event fails after its effect.
                if event.id() == "2" && event.retries() == 0 {
                    return Err(BoxError::from(Retry::after(Duration::ZERO)));
                }
                counted.fetch_add(1, Relaxed);
                Ok(tx)
            }
        })
        .unwrap();
    let running = subscriber.start().await.unwrap();
    let publisher = broker.publisher();
    // The broker delivers an event twice where its ack was lost: two events with one key are the same.
    for (id, key) in [("1", "one"), ("1b", "one"), ("2", "two"), ("3", "three")] {
        publisher.publish(event(id).with_idempotency_key(key)).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while broker.subscriptions().await.unwrap().iter().any(|s| s.ready > 0 || s.in_flight != Some(0)) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.stop().await.unwrap();
    assert_eq!(tries.load(Relaxed), 3, "each key once");
    assert!(broker.subscriptions().await.unwrap().iter().all(|s| s.dead == 0), "an outage spends no attempt");
    let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.query(&format!("SELECT id FROM {effects} ORDER BY id"), &[]).await.unwrap();
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    client.batch_execute(&format!("DROP TABLE {effects}")).await.unwrap();
    remove(database).await;
}

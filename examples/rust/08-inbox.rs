//! A payment is delivered twice and booked once: the inbox remembers it in the handler's own transaction.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use serde_json::{Value, json};
use tidings::inbox::InboxWriter;
use tidings::outbox::Dialect;
use tidings::{BoxError, Broker, DomainEvent};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let inbox = InboxWriter::new(Dialect::Sqlite);
    let database = Connection::open("bank.db")?;
    database.execute_batch(&inbox.schema())?;
    database.execute_batch("CREATE TABLE account (balance INTEGER); INSERT INTO account VALUES (0)")?;
    let database = Arc::new(Mutex::new(database));

    let book = {
        let database = database.clone();
        move |event: &DomainEvent| {
            let mut database = database.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = database.transaction()?; // rolled back if it is dropped
            let new = tidings_rusqlite::claim(&inbox, &tx, "bank", event)?;
            if new {
                let amount = event.data::<Value>()?["amount"].as_i64().ok_or("no amount")?;
                tx.execute("UPDATE account SET balance = balance + ?", [amount])?;
            }
            tx.commit()?;
            Ok::<bool, BoxError>(new)
        }
    };

    let broker = Broker::from_env().await?;
    let (delivered, mut deliveries) = mpsc::channel(8);
    let subscriber = broker.subscriber();
    subscriber.subscription("bank").bind("payment.*").handle(move |event: DomainEvent| {
        let new = book(&event);
        let delivered = delivered.clone();
        async move { Ok::<(), BoxError>(delivered.send(new?).await?) }
    })?;
    let running = subscriber.start().await?;

    let payment = DomainEvent::new("payment.received", &json!({"amount": 100}))?;
    broker.publisher().publish(payment.clone()).await?;
    broker.publisher().publish(payment).await?;
    let mut handled = 0;
    for _ in 0..2 {
        handled += u32::from(deliveries.recv().await.ok_or("the handler is gone")?);
    }
    running.stop().await?;

    let database = database.lock().unwrap_or_else(PoisonError::into_inner);
    let balance: i64 = database.query_row("SELECT balance FROM account", [], |row| row.get(0))?;
    println!("delivered 2 times, handled {handled} time, balance {balance}");
    Ok(())
}

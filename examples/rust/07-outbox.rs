//! An order and its event are one transaction of the program's own database; a relay publishes what was committed.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use tidings::outbox::{Dialect, Outbox, OutboxWriter};
use tidings::{BoxError, Broker, DomainEvent};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Cargo links one copy of SQLite, so the relay may share the file with this program.
    let outbox = Outbox::connect("sqlite:shop.db?shared=true").await?;
    outbox.install().await?;

    let writer = OutboxWriter::new(Dialect::Sqlite);
    let mut database = Connection::open("shop.db")?;
    database.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)")?;
    for order in [7, 8] {
        let tx = database.transaction()?;
        tx.execute("INSERT INTO orders VALUES (?)", [order])?;
        tidings_rusqlite::add(&writer, &tx, &[DomainEvent::new("order.placed", &json!({"id": order}))?.into()])?;
        if order == 8 {
            tx.rollback()?;
            println!("order {order} is rolled back");
        } else {
            tx.commit()?;
            println!("order {order} is committed");
        }
    }

    let broker = Broker::from_env().await?;
    let (billed, mut bills) = mpsc::channel(8);
    let subscriber = broker.subscriber();
    subscriber.subscription("billing").bind("order.*").handle(move |event: DomainEvent| {
        let billed = billed.clone();
        async move {
            billed.send(event.data::<Value>()?["id"].clone()).await?;
            Ok::<(), BoxError>(())
        }
    })?;
    let running = subscriber.start().await?;
    let relay = outbox.relay(&broker).start().await?; // or, as a process of its own: tidings outbox relay
    println!("billing order {}", bills.recv().await.ok_or("the handler is gone")?);
    outbox.drain(Duration::from_secs(30)).await?;
    println!("{} rows wait in the outbox", outbox.status().await?.pending);
    relay.stop().await?;
    outbox.close().await?;
    running.stop().await?;
    Ok(broker.close().await?)
}

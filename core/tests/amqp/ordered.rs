//! Ordered subscriptions as an owner finds them.

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tidings::KeyOrder;
use tidings::transport::Settlement;

use crate::support::{Bench, bare, next_one, settle, until};

/// Key, and the name that its queue has after the subscription's.
const KEY: (&str, &str) = ("abc", "-key-ba7816bf8f01cfea414140de5dae2223");

async fn exists(queue: &str) -> bool {
    let (connection, channel) = bare().await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.is_ok();
    connection.close(200, "".into()).await.unwrap();
    found
}

/// An owner died between writing down that a key is no longer parked and the end of its queue, which may go any moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_leaving_its_queue_is_handled_where_it_was() {
    let Some(mut bench) = Bench::new("leaving").await else { return };
    bench.spec.ordered = Some(KeyOrder::default());
    bench.subscribe().await.close().await;
    let (key, queue) = (KEY.0, format!("{}{}", bench.name, KEY.1));

    let (connection, channel) = bare().await;
    let put = async |to: &str, body: &[u8]| {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let sent = channel.basic_publish("".into(), to.into(), options, body, properties).await.unwrap();
        let confirm = sent.await.unwrap();
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "{to} is not there");
    };
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    put(&queue, b"handled, and come back because its ack was forgotten").await;
    let record = serde_json::json!({"id": "handled", "state": "leaving", "due": 0, "since": 0, "crashes": 0});
    let entry = serde_json::json!({"kind": "record", "key": key, "epoch": 7, "sequence": 1, "record": record});
    put(&format!("{}-order", bench.name), entry.to_string().as_bytes()).await;
    connection.close(200, "".into()).await.unwrap();

    let mut published = Vec::new();
    for _ in 0..3 {
        let message = bench.keyed(key);
        published.push(message.id.clone());
        bench.publish(message).await.unwrap();
    }
    let source = bench.subscribe().await;
    for id in published {
        let event = next_one(&source).await;
        assert_eq!(event.message.id, id);
        settle(&source, &event, Settlement::Ack).await;
    }
    until("the key's queue is gone", || async { !exists(&queue).await }).await;
    until("nothing is known of the key any more", || async {
        let survey = bench.transport.subscription(&bench.name).await.unwrap().unwrap();
        survey.order.is_some_and(|order| order.parked_keys + order.waiting_keys == 0)
    })
    .await;
    source.close().await;
    bench.done().await;
}

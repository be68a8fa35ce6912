//! Where the tests of the Rust adapters write: an outbox and an inbox of their own. A module of each of those tests.

use tidings::DomainEvent;
use tidings::inbox::InboxWriter;
use tidings::outbox::{Dialect, Outbox, OutboxEvent, OutboxWriter, Tables};

/// An outbox that is installed, and what writes into it. The test creates the inbox's table with its own driver.
pub(crate) struct Place {
    /// Of the outbox's table; the inbox's has `_in` behind it.
    pub(crate) name: String,
    pub(crate) writer: OutboxWriter,
    pub(crate) inbox: InboxWriter,
    pub(crate) outbox: Outbox,
}

impl Place {
    pub(crate) async fn open(url: &str, dialect: Dialect) -> Self {
        let name = format!("rs_{}", &tidings::event::new_id()[24..]);
        let tables = Tables::new(&name).unwrap();
        let outbox = Outbox::connect_to(url, tables.clone()).await.unwrap();
        outbox.install().await.unwrap();
        let inbox = InboxWriter::new(dialect).table(&format!("{name}_in")).unwrap();
        Self { name, writer: OutboxWriter::new(dialect).tables(tables), inbox, outbox }
    }

    /// Rows that wait to be published.
    pub(crate) async fn pending(&self) -> u64 {
        self.outbox.status().await.unwrap().pending
    }
}

/// Two events, with nulls and values in one statement.
pub(crate) fn events(first: usize) -> Vec<OutboxEvent> {
    let plain = DomainEvent::new("a.b", &"Zoë\0").unwrap().with_id(&format!("{first}")).unwrap();
    let full =
        plain.clone().with_id(&format!("{first}b")).unwrap().with_key("k").with_tenant("t").with_header("h", "ü");
    let later = tidings::Timestamp::from_micros(4_000_000_000_000_000);
    vec![plain.into(), OutboxEvent::new(full).exchange("elsewhere").available_at(later)]
}

//! What fuzzers may reach of the transports' insides.

use super::{amqp, memory, sqlite};
use crate::{Headers, Result};

/// Headers as RabbitMQ would hand them back; `None`: they are refused.
pub(crate) fn by_amqp(headers: &Headers) -> Option<Headers> {
    amqp::carry(headers)
}

/// Headers as a column would hand them back; `None`: they are refused.
pub(crate) fn by_sqlite(headers: &Headers) -> Option<Headers> {
    sqlite::carry(headers)
}

/// Reads a column that anybody may have written.
pub(crate) fn column(text: &str) {
    let _any_answer_will_do = sqlite::read_column(Some(text));
}

/// Reads a broker's URL.
pub(crate) fn url(text: &str) -> Result<()> {
    match text.split(':').next() {
        Some("amqp" | "amqps") => amqp::virtual_host(text).map(drop),
        Some("sqlite") => sqlite::check_url(text),
        Some("memory") => memory::connect(text).map(drop),
        _ => Ok(()),
    }
}

//! Headers on the wire and in a column.

use super::bytes::Bytes;
use crate::Headers;

/// Deeper than any transport carries.
const DEEP: u8 = 20;

/// What was carried once stays as it is, whichever way it goes, and however often.
pub(super) fn headers(bytes: &[u8]) {
    let headers = Bytes(bytes).headers(DEEP);
    if headers.check().is_err() {
        return;
    }
    carried("AMQP", &headers, crate::transport::carry::by_amqp);
    carried("SQLite", &headers, crate::transport::carry::by_sqlite);
    // And what somebody else has left in a column.
    crate::transport::carry::column(&String::from_utf8_lossy(bytes));
}

fn carried(by: &str, headers: &Headers, carry: impl Fn(&Headers) -> Option<Headers>) {
    let Some(once) = carry(headers) else { return };
    let twice = carry(&once).unwrap_or_else(|| panic!("{by} refuses what it has carried: {once:?}"));
    // As text: NaN is not equal to itself.
    assert_eq!(format!("{once:?}"), format!("{twice:?}"), "{by} changes what it has carried");
    for (name, value) in once.iter() {
        let before = headers.get(name);
        assert!(before.is_some(), "{by} invents {name}: {value:?}");
        if let (Some(before), Some(after)) = (before.and_then(|value| value.as_str()), value.as_str()) {
            assert_eq!(before, after, "{by} changes the text of {name}");
        }
    }
}

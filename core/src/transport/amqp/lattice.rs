//! The delay lattice: any delay through the same 26 queues.
//!
//! A delay is a number of 100 ms units, written in binary into the headers. Level `n` is an exchange and a queue that
//! keeps an event for 2^n units: the exchange sends a 1 to its queue and a 0 straight on to level n − 1, where the
//! queue's events go too. Level 0 is followed by the exchange that delivers.

use std::time::Duration;

use lapin::types::FieldTable;

use super::headers::{int, name_of, text};
use crate::event::name;
use crate::{Error, ErrorKind, Result};

/// Levels 0 to 25.
pub(super) const LEVELS: u32 = 26;
/// The shortest delay, and what delays are rounded up to.
const UNIT: Duration = Duration::from_millis(100);
/// The longest delay: every bit set, 77 days and 16 hours.
pub(super) const MAX_DELAY: Duration = Duration::from_millis(100 * ((1 << LEVELS) - 1));

/// Name of a level's exchange, queue and header.
pub(super) fn level_name(level: u32) -> String {
    format!("{}{level}", name::DELAY_PREFIX)
}

/// How long a level's queue keeps an event, in milliseconds.
pub(super) fn level_millis(level: u32) -> i64 {
    100 << level
}

/// Where a delayed event is published, and the headers that steer it.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) exchange: String,
    pub(super) steering: FieldTable,
}

/// The way to `to` that takes `delay`, rounded up; `None` where there is nothing to wait for.
pub(super) fn route(delay: Duration, to: &str) -> Result<Option<Route>> {
    if delay > MAX_DELAY {
        return Err(too_long(delay));
    }
    let units = delay.as_micros().div_ceil(UNIT.as_micros());
    let Some(top) = units.checked_ilog2() else { return Ok(None) };
    let mut steering = FieldTable::default();
    for level in 0..=top {
        steering.insert(name_of(level_name(level)), int(i64::from(units >> level & 1 == 1)));
    }
    steering.insert(name_of(name::TO), text(to));
    Ok(Some(Route { exchange: level_name(top), steering }))
}

/// The delay is beyond [`MAX_DELAY`].
pub(super) fn too_long(delay: Duration) -> Error {
    Error::new(ErrorKind::InvalidDelay, "the delay is longer than the levels on the broker add up to")
        .field("delay", format!("{delay:?}"))
        .remedy(format!("use at most {} days, or the outbox's available_at", MAX_DELAY.as_secs() / 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(delay: Duration) -> (String, Vec<i64>) {
        let route = route(delay, "queue:q").unwrap().unwrap();
        let bits = (0..LEVELS)
            .map_while(|level| route.steering.inner().get(level_name(level).as_str())?.as_long_int())
            .map(i64::from);
        (route.exchange.clone(), bits.collect())
    }

    #[test]
    fn delays_are_rounded_up_and_written_in_binary() {
        assert_eq!(bits(Duration::from_millis(1)), ("tidings-delay-0".into(), vec![1]));
        assert_eq!(bits(Duration::from_millis(100)), ("tidings-delay-0".into(), vec![1]));
        assert_eq!(bits(Duration::from_micros(100_001)), ("tidings-delay-1".into(), vec![0, 1]));
        assert_eq!(bits(Duration::from_millis(1300)), ("tidings-delay-3".into(), vec![1, 0, 1, 1]));
        assert_eq!(bits(MAX_DELAY), ("tidings-delay-25".into(), vec![1; 26]));
        assert!(route(Duration::ZERO, "queue:q").unwrap().is_none());
    }

    #[test]
    fn longer_than_77_days_is_refused() {
        let error = route(MAX_DELAY + Duration::from_millis(1), "queue:q").unwrap_err();
        assert_eq!(error.code(), "INVALID_DELAY");
    }
}

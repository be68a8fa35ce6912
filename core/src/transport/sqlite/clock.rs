//! The store's clock: one for all processes of the host, never set, never going back.
//!
//! It is the host's boot-time clock (which also runs while the host sleeps) plus an offset that the first process
//! after a boot takes from the wall clock. Later changes of the wall clock do not move it, so a lease neither ends
//! early nor lives for ever.

use std::sync::OnceLock;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::Step;
use super::owner;
use crate::event::Timestamp;

/// The largest time: never.
pub(super) const NEVER: i64 = i64::MAX;

/// Microseconds on the store's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    offset: i64,
}

impl Clock {
    pub(super) fn now(self) -> i64 {
        boot_micros().saturating_add(self.offset)
    }

    /// The time that the wall clock calls `at`.
    pub(super) fn at(self, at: Timestamp) -> i64 {
        let from_now = at.as_micros().saturating_sub(Timestamp::now().as_micros());
        self.now().saturating_add(from_now)
    }

    /// Reads the offset, or sets it if nobody has since the host was booted. Needs a write transaction.
    pub(super) fn load(conn: &Connection) -> Step<Self> {
        Self::adopt(conn, boot_id(), boot_micros(), Timestamp::now().as_micros())
    }

    fn adopt(conn: &Connection, boot: &str, boot_now: i64, wall_now: i64) -> Step<Self> {
        let stored: Option<(String, i64, i64)> = conn
            .query_row("SELECT boot_id, offset, latest FROM tidings_clock", [], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            })
            .optional()?;
        let latest = match stored {
            Some((id, offset, _)) if id == boot => return Ok(Self { offset }),
            Some((_, _, latest)) => latest,
            None => 0,
        };
        // A wall clock that was lost with the host's power must not make what waits wait for years.
        let newest: Option<i64> = conn.query_row("SELECT max(id) FROM tidings_event", [], |r| r.get(0))?;
        let now = wall_now.max(latest).max(newest.unwrap_or(0));
        conn.execute(
            "INSERT INTO tidings_clock (one, boot_id, offset, latest) VALUES (1, ?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET boot_id = excluded.boot_id, offset = excluded.offset, latest = excluded.latest",
            params![boot, now - boot_now, now],
        )?;
        // Whoever held anything ended with its boot.
        owner::end_all(conn, now)?;
        Ok(Self { offset: now - boot_now })
    }
}

/// Remembers that the time was `now`, for the case that the wall clock is lost at the next boot.
pub(super) fn remember(conn: &Connection, now: i64) -> Step<()> {
    conn.prepare_cached("UPDATE tidings_clock SET latest = ?1 WHERE latest < ?1")?.execute([now])?;
    Ok(())
}

/// Microseconds since the host was booted, time asleep included.
#[cfg(unix)]
fn boot_micros() -> i64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    // Counts time asleep on Apple systems.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000)
}

/// Where no boot-time clock can be had from safe code, the wall clock stands in and must not be set back.
#[cfg(not(unix))]
fn boot_micros() -> i64 {
    Timestamp::now().as_micros()
}

/// What names this boot of the host: the same for all its processes, another one after a restart.
fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| read_boot_id().filter(|id| !id.is_empty()).unwrap_or_else(|| "unknown".to_owned()))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn read_boot_id() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

#[cfg(any(target_os = "macos", target_os = "ios"))]
fn read_boot_id() -> Option<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "kern.bootsessionuuid"]).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios")))]
fn read_boot_id() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::sqlite::schema;

    fn store() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(schema::BROKER[0]).unwrap();
        conn
    }

    #[test]
    fn the_same_boot_keeps_its_offset() {
        let conn = store();
        let first = Clock::adopt(&conn, "a", 5_000, 1_000_000).unwrap();
        let second = Clock::adopt(&conn, "a", 6_000, 9_999_999).unwrap();
        assert_eq!((first.offset, second.offset), (995_000, 995_000));
    }

    #[test]
    fn a_boot_without_a_wall_clock_does_not_go_back() {
        let conn = store();
        Clock::adopt(&conn, "a", 5_000, 1_000_000).unwrap();
        remember(&conn, 2_000_000).unwrap();
        let clock = Clock::adopt(&conn, "b", 100, 7).unwrap();
        assert_eq!(clock.offset + 100, 2_000_000);
    }

    #[test]
    fn a_boot_ends_all_leases() {
        let conn = store();
        Clock::adopt(&conn, "a", 0, 1_000).unwrap();
        conn.execute_batch(
            "INSERT INTO tidings_owner (id, subscription, until) VALUES (7, 1, 99999999);
             INSERT INTO tidings_delivery VALUES (1, 7, 500, 500, 0, NULL), (1, 0, 600, 600, 0, NULL);",
        )
        .unwrap();
        Clock::adopt(&conn, "b", 0, 2_000).unwrap();
        let free: i64 = conn
            .query_row("SELECT count(*) FROM tidings_delivery WHERE owner = 0 AND lost = (event = 500)", [], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(free, 2);
    }
}

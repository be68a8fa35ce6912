//! A transaction as the work in it sees it, and what the writer remembers between transactions.

use rusqlite::Connection;

use super::bindings::Bindings;
use super::clock::{Clock, NEVER};
use super::error::Step;
use super::ledger::Ledger;
use super::url::Options;

/// What the writer thread remembers. Whatever repeats the file is read again once another process has written.
pub(super) struct State {
    pub(super) options: Options,
    /// The options were merged with those of another opener.
    pub(super) options_changed: bool,
    pub(super) ledger: Ledger,
    pub(super) bindings: Bindings,
    /// Largest id of an event.
    pub(super) last_id: i64,
    /// When the first lease of anybody ends.
    pub(super) lease_end: i64,
    /// When the first scheduled event is due.
    pub(super) scheduled: i64,
    /// Subscriptions that may have something to claim since the transaction began.
    pub(super) touched: Vec<i64>,
    /// Subscriptions that are being removed.
    pub(super) purging: Vec<i64>,
    /// When settled events are looked through for old ones.
    pub(super) retention_due: i64,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            options_changed: false,
            ledger: Ledger::default(),
            bindings: Bindings::default(),
            last_id: 0,
            lease_end: NEVER,
            scheduled: NEVER,
            touched: Vec::new(),
            purging: Vec::new(),
            retention_due: 0,
        }
    }

    /// Says that `subscription` may have something to claim.
    pub(super) fn touch(&mut self, subscription: i64) {
        if !self.touched.contains(&subscription) {
            self.touched.push(subscription);
        }
    }
}

/// One transaction of the writer thread.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) clock: Clock,
    /// The store's time at the beginning.
    pub(super) now: i64,
    pub(super) state: &'a mut State,
}

impl Tx<'_> {
    /// An id for a new event: later than every other, and never used before.
    pub(super) fn event_id(&mut self) -> i64 {
        self.state.last_id = self.now.max(self.state.last_id + 1);
        self.state.last_id
    }

    /// Reads again what other processes may have changed.
    pub(super) fn reload(&mut self) -> Step<()> {
        let newest: Option<i64> = self.conn.prepare_cached("SELECT max(ifnull((SELECT max(id) FROM tidings_event), 0), ifnull((SELECT max(id) FROM tidings_scheduled), 0))")?.query_row([], |r| r.get(0))?;
        self.state.last_id = self.state.last_id.max(newest.unwrap_or(0));
        let end: Option<i64> =
            self.conn.prepare_cached("SELECT min(until) FROM tidings_owner")?.query_row([], |r| r.get(0))?;
        self.state.lease_end = end.unwrap_or(NEVER);
        let due: Option<i64> =
            self.conn.prepare_cached("SELECT min(due) FROM tidings_scheduled")?.query_row([], |r| r.get(0))?;
        self.state.scheduled = due.unwrap_or(NEVER);
        Bindings::reload(self)
    }
}

//! What cases counted, and the sum over all of them.

use std::fmt;
use std::ops::AddAssign;

/// The figures of one case or of many.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Confirmed, or committed.
    pub(crate) events: u64,
    /// Faults that struck.
    pub(crate) faults: u64,
    pub(crate) lost: u64,
    /// Lost where only the best effort is promised.
    pub(crate) let_go: u64,
    pub(crate) invented: u64,
    /// Seen twice by a handler, which at-least-once allows.
    pub(crate) duplicated: u64,
    /// Effects that took place twice behind an inbox, which nothing allows.
    pub(crate) effects_twice: u64,
    pub(crate) out_of_order: u64,
    pub(crate) stuck: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.faults += other.faults;
        self.lost += other.lost;
        self.let_go += other.let_go;
        self.invented += other.invented;
        self.duplicated += other.duplicated;
        self.effects_twice += other.effects_twice;
        self.out_of_order += other.out_of_order;
        self.stuck += other.stuck;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} faults: {} lost, {} invented, {} effects twice, {} out of order, {} stuck; {} seen twice, {} \
             lost where only the best effort is promised",
            self.events,
            self.faults,
            self.lost,
            self.invented,
            self.effects_twice,
            self.out_of_order,
            self.stuck,
            self.duplicated,
            self.let_go,
        )
    }
}

/// How a case ended, in words and in figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) text: String,
    /// What must not be; empty if all is well.
    pub(crate) wrong: Vec<String>,
    pub(crate) tally: Tally,
}

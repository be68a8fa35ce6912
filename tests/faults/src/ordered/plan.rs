//! What ordered subscriptions go through.

use fastrand::Rng;

use crate::place::Place;
use crate::servers::Server;

/// What is done to the members, or to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// `kill -9` of a member, mostly an owner; another one starts a moment later.
    Kill,
    /// SIGSTOP for longer than the heartbeat or lease, then SIGCONT.
    Freeze,
    /// The broker closes all connections.
    Cut,
    /// The proxy resets every connection in the middle of a frame.
    Reset,
    /// The proxy passes nothing on for longer than the heartbeat, and tells nobody.
    Silence,
    /// All members are replaced, one after the other.
    Deploy,
    /// So many members from here on.
    Scale(usize),
    /// `kill -9` of the broker, then a restart.
    KillBroker,
}

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) disturbances: Vec<Disturbance>,
    /// Whether they come in any order.
    pub(crate) shuffled: bool,
    /// Processes that compete at the beginning.
    pub(crate) members: usize,
    /// Queues that the keys are divided into.
    pub(crate) partitions: u16,
    /// Events; all of them wait before the first disturbance, if `backlog` says so.
    pub(crate) events: u64,
    pub(crate) backlog: bool,
    pub(crate) classic: bool,
    /// Whether heads die or wait so long that their keys get queues of their own.
    pub(crate) parking: bool,
    /// On a broker that only this rig uses.
    pub(crate) private: bool,
    /// Through a proxy.
    pub(crate) proxied: bool,
    /// Effects take place in a database, behind an inbox.
    pub(crate) inbox: bool,
    /// What is lost is reported and does not fail the case.
    pub(crate) best_effort: bool,
}

impl Plan {
    fn new(disturbances: Vec<Disturbance>, events: u64) -> Self {
        Self {
            disturbances,
            shuffled: true,
            members: 3,
            partitions: 1,
            events,
            backlog: false,
            classic: false,
            parking: true,
            private: false,
            proxied: false,
            inbox: false,
            best_effort: false,
        }
    }

    /// The plans of a profile for one server, with their names. Where the keys are given, SQLite has all of their events.
    pub(crate) fn all(server: &Server, long: bool, events: u64, keyed: bool) -> Vec<(&'static str, Self)> {
        use Disturbance::{Cut, Deploy, Freeze, Kill, KillBroker, Reset, Scale, Silence};
        let mixed = |kills: usize, others: &[Disturbance], times: usize| {
            let mut all = vec![Kill; kills];
            all.extend(others.iter().copied().cycle().take(others.len() * times));
            all
        };
        let scaling = |rounds: usize| [Scale(4), Kill, Scale(2), Kill, Scale(1), Kill].repeat(rounds);
        let first = server.name == "rabbitmq3";
        let (kills, times) = if long { (50, 4) } else { (6, 1) };
        let count = if long { events.min(12_000) } else { 1500 };
        if !server.is_rabbitmq() {
            let mut sqlite = Self::new(mixed(kills, &[Freeze, Deploy], times), count);
            sqlite.members = 4;
            if keyed {
                sqlite.events = events;
            }
            return if long { vec![("ordered", sqlite)] } else { Vec::new() };
        }
        let plan = Self::new(mixed(kills, &[Freeze, Cut, Deploy], times), count);
        let mut all = vec![("ordered", plan.clone()), ("ordered-classic", Self { classic: true, ..plan.clone() })];
        let mut divided = Self { partitions: 8, ..plan };
        if !long {
            divided =
                Self { events: 600, disturbances: vec![Kill, Scale(4), Kill, Scale(2)], shuffled: false, ..divided };
        }
        if long || !first {
            all.push(("ordered-partitions", divided.clone()));
        }
        if long {
            all.push(("ordered-freeze", Self::new(vec![Freeze; 10], count)));
            let lines = Self { proxied: true, ..Self::new(mixed(10, &[Reset, Silence, Reset], 6), count) };
            all.push(("ordered-lines", lines));
            let inbox = Self { inbox: true, ..Self::new(mixed(20, &[Freeze, Cut], 2), count) };
            all.push(("ordered-inbox", inbox));
            all.push(("ordered-partitions-classic", Self { classic: true, ..divided.clone() }));
            let scaled = Self { shuffled: false, members: 1, ..Self::new(scaling(4), count) };
            all.push(("ordered-scale", scaled.clone()));
            all.push(("ordered-partitions-scale", Self { partitions: 8, ..scaled }));
        }
        let killed = Self { private: true, ..Self::new(vec![KillBroker; 5], count.min(6000)) };
        if long {
            all.push(("ordered-kill-broker", killed.clone()));
        }
        let backlog = Self {
            backlog: true,
            ..Self::new(vec![Deploy; if long { 6 } else { 1 }], if long { events } else { 800 })
        };
        if long || !first {
            all.push(("ordered-backlog", backlog.clone()));
        }
        if long {
            all.push(("ordered-partitions-kill-broker", Self { partitions: 8, ..killed.clone() }));
            all.push(("ordered-classic-kill-broker", Self { classic: true, best_effort: true, ..killed }));
            all.push(("ordered-partitions-backlog", Self { partitions: 8, ..backlog }));
        }
        all
    }

    /// Whether one process at a time has all keys.
    pub(crate) fn one_owner(&self, place: &Place) -> bool {
        self.partitions == 1 && place.url.starts_with("amqp")
    }

    /// The disturbances in the order in which they come.
    pub(crate) fn in_order(&self, rng: &mut Rng) -> Vec<Disturbance> {
        let mut all = self.disturbances.clone();
        if self.shuffled {
            rng.shuffle(&mut all);
        }
        all
    }
}

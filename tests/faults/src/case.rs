//! The cases: which faults on which broker.

use crate::fault::Fault;
use crate::options::Options;
use crate::ordered;
use crate::outbox::Plan;
use crate::servers::Server;

/// One run: a broker, a load, and what goes wrong meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) server: Server,
    pub(crate) ground: Ground,
    pub(crate) classic: bool,
    pub(crate) faults: Vec<Fault>,
    /// What is lost is reported and does not fail the case.
    pub(crate) best_effort: bool,
    pub(crate) kind: Kind,
}

/// Where it takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// On the server that the environment names, in a virtual host of our own.
    Shared,
    /// On a server of our own.
    Private,
    /// As [`Ground::Shared`], through a proxy.
    Proxied,
    /// In a small file system.
    SmallDisk,
    /// With processes whose wall clocks can be set.
    Clocked,
}

/// What runs while it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Client {
    /// The one that the options name, Rust's by default.
    Given,
    Python,
    Node,
}

/// What runs while it goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Publishers and subscribers.
    Plain(Client),
    /// The same; handlers are slow, hang, and end their process.
    Troubled,
    /// An ordered subscription, which is disturbed in its own way.
    Ordered(ordered::Plan),
    /// Writers, relays and handlers with an inbox, which are disturbed in their own way.
    Outbox(Plan),
}

impl Case {
    fn new(server: &Server, name: &str, ground: Ground, faults: Vec<Fault>) -> Self {
        Self {
            name: format!("{}/{name}", server.name),
            server: server.clone(),
            ground,
            classic: false,
            best_effort: faults.contains(&Fault::DeleteQueue),
            faults,
            kind: Kind::Plain(Client::Given),
        }
    }

    /// Whether handlers have an inbox in a database of their own.
    pub(crate) fn with_inbox(&self) -> bool {
        matches!(&self.kind, Kind::Ordered(plan) if plan.inbox)
    }

    fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// The cases of a profile, in order.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let mut all = Vec::new();
    for server in Server::all(&options.services) {
        if server.is_rabbitmq() {
            of_rabbitmq(&server, options.long, &mut all);
        } else {
            of_sqlite(&server, options.long, &mut all);
        }
        for (name, plan) in ordered::Plan::all(&server, options.long, options.events, options.keys.is_some()) {
            let ground = if plan.private {
                Ground::Private
            } else if plan.proxied {
                Ground::Proxied
            } else {
                Ground::Shared
            };
            all.push(Case::new(&server, name, ground, Vec::new()).of(Kind::Ordered(plan)));
        }
        if options.long || server.name != "rabbitmq4" {
            all.push(Case::new(&server, "handlers", Ground::Shared, Vec::new()).of(Kind::Troubled));
        }
        if options.client.is_none() && (options.long || server.name != "rabbitmq4") {
            let faults = vec![Fault::KillPublisher, Fault::KillSubscriber, Fault::FreezeSubscriber];
            all.push(Case::new(&server, "node", Ground::Shared, faults.clone()).of(Kind::Plain(Client::Node)));
            if options.long {
                all.push(Case::new(&server, "python", Ground::Shared, faults).of(Kind::Plain(Client::Python)));
            }
        }
    }
    if options.client.is_none() {
        all.extend(outbox(options));
    }
    all.retain(|case| options.wants(&case.name));
    all
}

fn of_sqlite(server: &Server, long: bool, all: &mut Vec<Case>) {
    use Fault::{FillDisk, FreezeSubscriber, KillPublisher, KillSubscriber, ReadOnly, StepClock};
    let times = if long { 4 } else { 1 };
    for fault in [KillPublisher, KillSubscriber, FreezeSubscriber] {
        all.push(Case::new(server, fault.name(), Ground::Shared, vec![fault; times]));
    }
    for fault in [FillDisk, ReadOnly] {
        all.push(Case::new(server, fault.name(), Ground::SmallDisk, vec![fault; times]));
    }
    all.push(Case::new(server, StepClock.name(), Ground::Clocked, vec![StepClock; 2 * times]));
}

fn of_rabbitmq(server: &Server, long: bool, all: &mut Vec<Case>) {
    use Fault::{
        BlackHole, CloseConnections, Cut, Delay, DeleteQueue, FreezePublisher, FreezeSubscriber, Halve, KillBroker,
        KillPublisher, KillSubscriber, MemoryAlarm, Reset, StepClock,
    };
    let line = [Cut, Delay, Halve, BlackHole, Reset];
    if long {
        for fault in [KillPublisher, KillSubscriber, FreezeSubscriber, FreezePublisher, CloseConnections] {
            all.push(Case::new(server, fault.name(), Ground::Shared, vec![fault; 3]));
        }
        for fault in line {
            all.push(Case::new(server, fault.name(), Ground::Proxied, vec![fault; 4]));
        }
        for fault in [KillBroker, MemoryAlarm] {
            all.push(Case::new(server, fault.name(), Ground::Private, vec![fault; 3]));
        }
        let mixed = [KillBroker, KillPublisher, KillSubscriber, FreezeSubscriber, CloseConnections];
        all.push(Case::new(server, "mixed", Ground::Private, [mixed, mixed].concat()));
        all.push(Case::new(server, "proxy", Ground::Proxied, [line, line].concat()));
        all.push(Case::new(server, StepClock.name(), Ground::Clocked, vec![StepClock; 4]));
    } else {
        all.push(Case::new(server, KillBroker.name(), Ground::Private, vec![KillBroker]));
        let mixed = vec![KillPublisher, CloseConnections, KillSubscriber, FreezeSubscriber];
        all.push(Case::new(server, "mixed", Ground::Shared, mixed));
    }
    if server.name == "rabbitmq3" {
        if long {
            let classic = Case::new(server, "classic-kill-broker", Ground::Private, vec![KillBroker]);
            all.push(Case { classic: true, best_effort: true, ..classic });
        } else {
            all.push(Case::new(server, "proxy", Ground::Proxied, line.into()));
            all.push(Case::new(server, MemoryAlarm.name(), Ground::Private, vec![MemoryAlarm]));
        }
        all.push(Case::new(server, DeleteQueue.name(), Ground::Shared, vec![DeleteQueue]));
    }
}

/// What the outbox goes through, over each database.
fn outbox(options: &Options) -> impl Iterator<Item = Case> {
    let server = Server::rabbitmq(&options.services);
    Plan::all(options.long).into_iter().map(move |(name, plan)| Case {
        name: format!("outbox-{name}"),
        ..Case::new(&server, "", Ground::Private, Vec::new()).of(Kind::Outbox(plan))
    })
}

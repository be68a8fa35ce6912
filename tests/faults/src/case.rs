//! The cases: which faults on which broker.

use crate::options::Options;
use crate::outbox::Plan;
use crate::servers::Server;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of a publisher; another one takes over its work.
    KillPublisher,
    /// `kill -9` of a subscriber; another one starts a moment later.
    KillSubscriber,
    /// SIGSTOP of a subscriber for longer than its lease or heartbeat, then SIGCONT.
    FreezeSubscriber,
    /// `kill -9` of the broker, then a restart.
    KillBroker,
    /// The broker closes all connections.
    CloseConnections,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::KillPublisher => "kill-publisher",
            Self::KillSubscriber => "kill-subscriber",
            Self::FreezeSubscriber => "freeze-subscriber",
            Self::KillBroker => "kill-broker",
            Self::CloseConnections => "close-connections",
        }
    }

    /// Whether it disturbs the server itself.
    pub(crate) const fn needs_server(self) -> bool {
        matches!(self, Self::KillBroker | Self::CloseConnections)
    }
}

/// One run: a broker, a load, and what goes wrong meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) server: Server,
    pub(crate) classic: bool,
    pub(crate) faults: Vec<Fault>,
    /// What is lost is reported and does not fail the case.
    pub(crate) best_effort: bool,
    pub(crate) kind: Kind,
}

/// What runs while it goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Publishers and subscribers.
    Plain,
    /// The same, whose processes are Node's.
    Node,
    /// An ordered subscription, which is disturbed in its own way.
    Ordered,
    /// Writers, relays and handlers with an inbox, which are disturbed in their own way.
    Outbox(Plan),
}

/// What the outbox goes through, over each database.
fn outbox(options: &Options) -> impl Iterator<Item = Case> {
    let server = Server::rabbitmq(&options.services);
    Plan::all(options.long).into_iter().map(move |(name, plan)| Case {
        name: format!("outbox-{name}"),
        server: server.clone(),
        classic: false,
        faults: Vec::new(),
        best_effort: false,
        kind: Kind::Outbox(plan),
    })
}

/// The cases of a profile, in order.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    use Fault::{CloseConnections, FreezeSubscriber, KillBroker, KillPublisher, KillSubscriber};
    let mut all = Vec::new();
    for server in Server::all(&options.services) {
        let plan: Vec<(&str, Vec<Fault>, bool)> = match (server.is_rabbitmq(), options.long) {
            (false, long) => {
                let times = if long { 4 } else { 1 };
                let each = [KillPublisher, KillSubscriber, FreezeSubscriber];
                each.map(|fault| (fault.name(), vec![fault; times], false)).into()
            }
            (true, false) => vec![
                (KillBroker.name(), vec![KillBroker], false),
                ("mixed", vec![KillPublisher, CloseConnections, KillSubscriber, FreezeSubscriber], false),
            ],
            (true, true) => {
                let each = [KillBroker, KillPublisher, KillSubscriber, FreezeSubscriber, CloseConnections];
                let alone = each.into_iter().map(|fault| (fault.name(), vec![fault; 3], false));
                alone.chain([("mixed", [each, each].concat(), false)]).collect()
            }
        };
        let classic =
            (server.name == "rabbitmq3" && options.long).then(|| ("classic-kill-broker", vec![KillBroker], true));
        for (name, faults, classic) in plan.into_iter().chain(classic) {
            let name = format!("{}/{name}", server.name);
            let server = server.clone();
            all.push(Case { name, server, classic, faults, best_effort: classic, kind: Kind::Plain });
        }
        for (name, classic) in [("ordered", false), ("ordered-classic", true)] {
            if server.is_rabbitmq() {
                let name = format!("{}/{name}", server.name);
                let (server, faults) = (server.clone(), Vec::new());
                all.push(Case { name, server, classic, faults, best_effort: false, kind: Kind::Ordered });
            }
        }
        if options.client.is_none() && (options.long || server.name != "rabbitmq4") {
            let name = format!("{}/node", server.name);
            let faults = vec![KillPublisher, KillSubscriber, FreezeSubscriber];
            all.push(Case { name, server, classic: false, faults, best_effort: false, kind: Kind::Node });
        }
    }
    if options.client.is_none() {
        all.extend(outbox(options));
    }
    all.retain(|case| options.wants(&case.name));
    all
}

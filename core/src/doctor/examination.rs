//! [`Examination`]: what to look at, and the looking.

use std::time::Instant;

use super::policies::{is_ours, judge};
use super::{Check, Finding, Inventory, Level};
use crate::Broker;
use crate::outbox::Tables;
use crate::transport::SubscriptionInfo;
use crate::transport::registry::redact;

/// Accuracy of a server's clock as `rabbitmqctl` tells it, and skew beyond which `deliver_at` and ages are off.
const SKEW: std::time::Duration = std::time::Duration::from_secs(2);

/// What to look at.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::doctor::{Examination, Level};
///
/// let report = Examination::of("memory:").run().await;
/// assert!(report.worst() < Level::Warning);
/// # }); Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is looked at before run()"]
pub struct Examination {
    url: String,
    subscriptions: Vec<String>,
    inventory: Option<Inventory>,
    store: Option<(String, Tables)>,
}

/// What was found, in the order of looking.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// One for each thing that was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst level in it.
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

impl Examination {
    /// Of the broker that `url` names. A store that does not exist is not made.
    pub fn of(url: impl Into<String>) -> Self {
        Self { url: url.into(), subscriptions: Vec::new(), inventory: None, store: None }
    }

    /// This subscription too, on brokers that do not list theirs (RabbitMQ). May be called several times.
    pub fn subscription(mut self, name: impl Into<String>) -> Self {
        self.subscriptions.push(name.into());
        self
    }

    /// With what only operators see: queues, policies, the server's clock.
    pub fn inventory(mut self, inventory: Inventory) -> Self {
        self.inventory = Some(inventory);
        self
    }

    /// The outbox in this database too.
    pub fn store(mut self, url: impl Into<String>, tables: Tables) -> Self {
        self.store = Some((url.into(), tables));
        self
    }

    /// The names that were asked for and those that the inventory shows.
    pub fn subscriptions(&self) -> Vec<String> {
        let mut names = self.subscriptions.clone();
        names.extend(self.inventory.iter().flat_map(Inventory::subscriptions));
        names.sort();
        names.dedup();
        names
    }

    /// What only operators see, if it was given.
    pub fn operators_view(&self) -> Option<&Inventory> {
        self.inventory.as_ref()
    }

    /// Reaches the broker and looks.
    pub async fn run(&self) -> Report {
        let mut report = self.of_broker().await;
        if let Some((url, tables)) = &self.store {
            report.findings.extend(super::store::examine(url, tables.clone()).await);
        }
        report
    }

    async fn of_broker(&self) -> Report {
        let subject = redact(&self.url);
        let started = Instant::now();
        let broker = match Broker::connect_existing(&self.url).await {
            Ok(broker) => broker,
            Err(error) => return Report { findings: vec![Finding::error(Check::Broker, subject, &error)] },
        };
        let reached = broker.ping().await;
        let mut findings = vec![match &reached {
            Ok(()) => Finding::ok(Check::Broker, subject.as_str(), format!("answers ({:.0?})", started.elapsed())),
            Err(error) => Finding::error(Check::Broker, subject.as_str(), error),
        }];
        if reached.is_ok() {
            match broker.transport().examine(self).await {
                Ok(found) => findings.extend(found),
                Err(error) => findings.push(Finding::error(Check::Broker, subject.as_str(), &error)),
            }
            findings.extend(self.depths(&broker).await);
        }
        if let Some(inventory) = &self.inventory {
            findings.extend(judge(inventory));
            findings.extend(leaders(inventory));
            findings.extend(clock(inventory));
        }
        if let Err(error) = broker.close().await {
            findings.push(Finding::error(Check::Broker, subject, &error));
        }
        Report { findings }
    }

    /// Who consumes, and what waits for a decision.
    async fn depths(&self, broker: &Broker) -> Vec<Finding> {
        let mut infos = match broker.subscriptions().await {
            Ok(infos) => infos,
            Err(error) => return vec![Finding::error(Check::Consumers, "", &error)],
        };
        let mut findings = Vec::new();
        for name in self.subscriptions() {
            if infos.iter().any(|info| info.name == name) {
                continue;
            }
            match broker.subscription(&name).await {
                Ok(Some(info)) => infos.push(info),
                Ok(None) => findings.push(
                    Finding::new(Check::Consumers, Level::Problem, name, "there is no subscription of this name")
                        .remedy("check the name and the broker URL; subscribing makes it"),
                ),
                Err(error) => findings.push(Finding::error(Check::Consumers, name, &error)),
            }
        }
        findings.extend(infos.iter().flat_map(depth));
        findings
    }
}

fn depth(info: &SubscriptionInfo) -> Vec<Finding> {
    let name = info.name.as_str();
    let consumers = match info.consumers {
        Some(0) if info.ready > 0 => Finding::new(
            Check::Consumers,
            Level::Warning,
            name,
            format!("{} events wait and nobody consumes", info.ready),
        )
        .remedy("start its subscriber, or delete the subscription if it is no longer wanted"),
        Some(consumers) => {
            Finding::ok(Check::Consumers, name, format!("{consumers} consumers, {} waiting", info.ready))
        }
        None => Finding::ok(Check::Consumers, name, format!("{} waiting", info.ready)),
    };
    let mut findings = vec![consumers];
    if info.dead > 0 {
        let message = format!("{} dead letters wait for a decision", info.dead);
        findings.push(
            Finding::new(Check::DeadLetters, Level::Note, name, message)
                .remedy(format!("look with `tidings dead-letters list {name}`, then replay or discard them")),
        );
    }
    findings
}

/// A quorum queue without a leader answers nobody: publishers and subscribers wait.
fn leaders(inventory: &Inventory) -> Vec<Finding> {
    let Some(leaderless) = inventory.leaderless() else {
        let message = "this server does not say which queues have a leader";
        return vec![
            Finding::new(Check::Leaders, Level::Unchecked, "quorum queues", message)
                .remedy("rabbitmqctl list_queues name type leader state"),
        ];
    };
    let subscriptions = inventory.subscriptions();
    let ours = leaderless.iter().filter(|(queue, _)| is_ours(queue, &subscriptions));
    let mut findings: Vec<Finding> = ours
        .map(|(queue, name)| {
            let message = "the quorum queue has no leader, so whoever publishes to it or consumes from it waits";
            Finding::new(Check::Leaders, Level::Problem, queue.as_str(), message).remedy(format!(
                "rabbitmqctl eval 'ra:trigger_election({{list_to_atom(\"{name}\"), node()}}).'; if its process is gone, \
                 restart the node: what was confirmed stays"
            ))
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(Check::Leaders, "quorum queues", "every one has a leader"));
    }
    findings
}

fn clock(inventory: &Inventory) -> Option<Finding> {
    let skew = inventory.clock_skew()?;
    if skew <= SKEW {
        return Some(Finding::ok(Check::Clock, "broker", format!("within {:.1} s of this host's", skew.as_secs_f64())));
    }
    let message = format!("the broker's clock and this host's are {:.0} s apart", skew.as_secs_f64());
    Some(
        Finding::new(Check::Clock, Level::Warning, "broker", message)
            .remedy("run NTP on both: times in events and dead letters come from the hosts' clocks"),
    )
}

//! What `tidings doctor` looks at on RabbitMQ.
//!
//! Queues are looked at by declaring them again as they should be, which changes nothing where they exist; permissions
//! and delays by sending probes through a queue that goes with its connection.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::time::Instant;

use super::connection::{Connector, answer_in_time};
use super::headers::{name_of, text};
use super::lattice;
use super::source::close_channel;
use super::topology::{
    DELIVER, Declarer, ORPHANS, SINGLE_ACTIVE, arguments, dead_letter_queue, safe_arguments, to_queue,
};
use super::url::Config;
use crate::doctor::{Check, Examination, Finding, Level};
use crate::event::name;
use crate::transport::{DEFAULT_EXCHANGE, QueueType, SubscriptionSpec};
use crate::{ErrorKind, Result};

/// Levels of the lattice that probes pass through: the last hop of nearly every delay is one of them.
const PROBED_LEVELS: u32 = 4;
/// Time that a probe may be late.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that can be seen over AMQP.
pub(super) async fn examine(config: &Config, connector: &Arc<Connector>, about: &Examination) -> Vec<Finding> {
    let mut findings = vec![security(config)];
    match orphans(connector).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(Finding::error(Check::Orphans, ORPHANS, &error)),
    }
    for name in about.subscriptions() {
        match queues_of(connector, &name).await {
            Ok(found) => findings.push(found),
            Err(error) => findings.push(Finding::error(Check::QueueArguments, name, &error)),
        }
    }
    findings.extend(probe(connector).await);
    if about.subscriptions().is_empty() && about.operators_view().is_none() {
        findings.push(
            Finding::new(
                Check::QueueArguments,
                Level::Unchecked,
                "subscriptions",
                "RabbitMQ does not list queues to clients",
            )
            .remedy("name the subscriptions, or give --rabbitmqctl"),
        );
    }
    if about.operators_view().is_none() {
        let message = "policies, delivery limits and the broker's clock are shown to its operators only";
        findings.push(
            Finding::new(Check::Policies, Level::Unchecked, "virtual host", message)
                .remedy("give --rabbitmqctl with a command that reaches the broker as its operator"),
        );
    }
    findings
}

fn security(config: &Config) -> Finding {
    let target = config.target();
    if config.tls.is_some() {
        return Finding::ok(Check::Security, target, "TLS, the server's certificate is verified");
    }
    if ["localhost", "127.0.0.1", "::1"].contains(&config.host.as_str()) {
        return Finding::ok(Check::Security, target, "no TLS, but the connection does not leave this host");
    }
    Finding::new(Check::Security, Level::Warning, target, "passwords and events can be read on their way")
        .remedy("use amqps:// with the server's TLS port (5671)")
}

/// A queue's messages; `None` if there is no such queue.
async fn depth(connector: &Arc<Connector>, queue: &str) -> Result<Option<u32>> {
    let declarer = Declarer::open(connector).await?;
    let Some(queue) = declarer.look(queue).await? else { return Ok(None) };
    declarer.close().await;
    Ok(Some(queue.message_count()))
}

async fn orphans(connector: &Arc<Connector>) -> Result<Vec<Finding>> {
    Ok(match depth(connector, ORPHANS).await? {
        None => vec![Finding::ok(Check::Orphans, ORPHANS, "nothing was declared in this virtual host yet")],
        Some(0) => vec![Finding::ok(Check::Orphans, ORPHANS, "none")],
        Some(count) => {
            let message = format!("{count} delayed events came due for a subscription or exchange that is gone");
            vec![Finding::new(Check::Orphans, Level::Warning, ORPHANS, message).remedy(
                "their header tidings-to names it: publish them again if they are wanted, then purge the queue",
            )]
        }
    })
}

/// Whether a subscription's queues have the arguments of one of the kinds that Tidings declares.
async fn queues_of(connector: &Arc<Connector>, name: &str) -> Result<Finding> {
    if depth(connector, name).await?.is_none() {
        return Ok(Finding::new(Check::QueueArguments, Level::Unchecked, name, "there is no queue of this name"));
    }
    if depth(connector, &dead_letter_queue(name)).await?.is_some() {
        let conflict = conflict(connector, &dead_letter_queue(name), safe_arguments(QueueType::Quorum)).await?;
        let native = SubscriptionSpec::new(name);
        let mut wanted = super::topology::queue_arguments(&native, QueueType::Quorum);
        let mut own = self::conflict(connector, name, wanted.clone()).await?;
        if own.as_ref().is_some_and(|conflict| conflict.contains(SINGLE_ACTIVE)) {
            // An ordered one.
            wanted.insert(name_of(SINGLE_ACTIVE), AMQPValue::Boolean(true));
            own = self::conflict(connector, name, wanted).await?;
        }
        let Some(named) = own.or(conflict) else {
            return Ok(Finding::ok(Check::QueueArguments, name, "quorum queue with at-least-once dead letters"));
        };
        for dead_letter in [true, false] {
            let mut compat = SubscriptionSpec::new(name);
            (compat.compat, compat.dead_letter) = (true, dead_letter);
            let wanted = super::topology::queue_arguments(&compat, QueueType::Classic);
            if self::conflict(connector, name, wanted).await?.is_none() {
                let message = "classic queue, best effort across a crash of the broker";
                return Ok(Finding::new(Check::QueueArguments, Level::Note, name, message)
                    .remedy("move to a native subscription once domain-event-broker no longer uses it"));
            }
        }
        return Ok(Finding::new(Check::QueueArguments, Level::Problem, name, named)
            .remedy("drain and delete the queue, and subscribe again"));
    }
    let message = "there is no queue for its dead letters";
    Ok(Finding::new(Check::QueueArguments, Level::Warning, name, message)
        .remedy("start a subscriber with dead letters: it declares what is missing"))
}

/// What the server says about a queue with these arguments; `None` if it has them.
async fn conflict(connector: &Arc<Connector>, queue: &str, wanted: FieldTable) -> Result<Option<String>> {
    let declarer = Declarer::open(connector).await?;
    match declarer.durable_queue(queue, wanted).await {
        Ok(_) => {
            declarer.close().await;
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::SubscriptionConflict => Ok(Some(error.message().to_owned())),
        Err(error) => Err(error),
    }
}

/// Declares a queue of its own, consumes from it, and sends events to it: at once and delayed.
async fn probe(connector: &Arc<Connector>) -> Vec<Finding> {
    let queue = format!("tidings-doctor-{}", crate::event::new_id());
    let subject = "configure, write, read";
    let mut findings = Vec::new();
    match permissions(connector, &queue).await {
        Err(error) => {
            let mut refused = Finding::error(Check::Permissions, subject, &error);
            if error.kind() == ErrorKind::SubscriptionNotFound {
                refused.level = Level::Unchecked;
                refused.remedy = Some("publish or subscribe once, which declares what is missing".to_owned());
            }
            findings.push(refused);
        }
        Ok((channel, mut consumer)) => {
            findings.push(Finding::ok(Check::Permissions, subject, "may declare, bind, publish and consume"));
            findings.push(match delays(connector, &channel, &mut consumer, &queue).await {
                Ok(finding) => finding,
                Err(error) => Finding::error(Check::Delays, "lattice", &error),
            });
            close_channel(&channel).await;
        }
    }
    findings
}

async fn permissions(connector: &Arc<Connector>, queue: &str) -> Result<(Channel, Consumer)> {
    let (channel, _) = connector.channel().await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name_of(queue), options, FieldTable::default());
    answer_in_time(declared, "declaring a queue (permission configure)").await?;
    let bound = channel.queue_bind(
        name_of(queue),
        name_of(DEFAULT_EXCHANGE),
        name_of(queue),
        lapin::options::QueueBindOptions::default(),
        FieldTable::default(),
    );
    answer_in_time(bound, "binding a queue (permissions write and read)").await?;
    let asked = channel.basic_consume(
        name_of(queue),
        name_of("doctor"),
        BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() },
        FieldTable::default(),
    );
    let mut consumer = answer_in_time(asked, "consuming (permission read)").await?;
    let what = "publishing (permission write)";
    send(&channel, DEFAULT_EXCHANGE, queue, FieldTable::default(), what).await?;
    receive(&mut consumer, Instant::now() + PROBE_TIMEOUT).await?;
    Ok((channel, consumer))
}

async fn send(channel: &Channel, exchange: &str, key: &str, headers: FieldTable, what: &str) -> Result<()> {
    let properties = BasicProperties::default().with_headers(headers);
    let (exchange, key) = (name_of(exchange), name_of(key));
    let sent = channel.basic_publish(exchange, key, BasicPublishOptions::default(), b"{}", properties);
    // Without confirms the answer is empty: a refusal closes the channel, which the wait for the probe sees.
    answer_in_time(async { sent.await?.await }, what).await.map(|_| ())
}

/// Waits for one probe. `false`: it did not come in time.
async fn receive(consumer: &mut Consumer, until: Instant) -> Result<bool> {
    match tokio::time::timeout_at(until, consumer.next()).await {
        Ok(Some(Ok(_))) => Ok(true),
        Ok(Some(Err(error))) => Err(super::error::answered(error, "publishing (permission write)")),
        Ok(None) => Err(crate::Error::new(ErrorKind::ConnectionFailed, "the consumer ended while it waited")),
        Err(_) => Ok(false),
    }
}

async fn delays(
    connector: &Arc<Connector>,
    channel: &Channel,
    consumer: &mut Consumer,
    queue: &str,
) -> Result<Finding> {
    let top = lattice::level_name(PROBED_LEVELS - 1);
    if depth(connector, &top).await?.is_none() {
        let message = "nothing was delayed in this virtual host yet";
        return Ok(Finding::ok(Check::Delays, "lattice", message));
    }
    let to = to_queue(queue);
    let wanted = arguments([("x-match", text("all")), (name::TO, text(&to))]);
    let options = lapin::options::QueueBindOptions::default();
    let bound = channel.queue_bind(name_of(queue), name_of(DELIVER), name_of(""), options, wanted);
    answer_in_time(bound, "binding a queue to the lattice").await?;
    let started = Instant::now();
    let longest = Duration::from_millis(lattice::level_millis(PROBED_LEVELS - 1).unsigned_abs());
    for level in 0..PROBED_LEVELS {
        let delay = Duration::from_millis(lattice::level_millis(level).unsigned_abs());
        if let Some(route) = lattice::route(delay, &to)? {
            send(channel, &route.exchange, "tidings.doctor", route.steering, "a delayed probe").await?;
        }
    }
    for arrived in 0..PROBED_LEVELS {
        if !receive(consumer, started + longest + PROBE_TIMEOUT).await? {
            let message = format!(
                "{} of {PROBED_LEVELS} delayed probes were not there {PROBE_TIMEOUT:?} after they were due",
                PROBED_LEVELS - arrived
            );
            return Ok(Finding::new(Check::Delays, Level::Problem, "lattice", message).remedy(
                "a queue that refuses events holds up the delays of the virtual host: look for a full queue with a max-length policy; \
                 the probes will be among the orphans",
            ));
        }
    }
    let late = started.elapsed().saturating_sub(longest);
    Ok(Finding::ok(Check::Delays, "lattice", format!("delays of 0.1 to 0.8 s arrive, the last {late:.0?} late")))
}

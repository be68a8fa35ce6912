//! `tidings subscriptions`: what waits where.

use clap::Args;
use serde_json::json;
use tidings::Timestamp;
use tidings::transport::SubscriptionInfo;

use crate::commands::doctor::Operator;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::Table;
use crate::values::{count, show, span};

/// RabbitMQ does not list queues to clients: name the subscriptions, or give --rabbitmqctl.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these
    names: Vec<String>,
    #[command(flatten)]
    operator: Operator,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let broker = context.existing_broker().await?;
    let mut names = options.names.clone();
    let lists_its_own = broker.capabilities().name != "amqp";
    if names.is_empty() && !lists_its_own {
        let Some(inventory) = options.operator.inventory(&context.broker_url()?).await? else {
            let remedy = "name them: `tidings subscriptions billing shipping`, or give --rabbitmqctl";
            return Err(Failure::usage("RabbitMQ does not list its queues to clients", remedy));
        };
        names = inventory.subscriptions();
    }
    let (infos, missing) = if names.is_empty() && lists_its_own {
        (broker.subscriptions().await?, None)
    } else {
        let (mut infos, mut missing) = (Vec::new(), None);
        for name in names {
            match broker.subscription(&name).await? {
                Some(info) => infos.push(info),
                None => missing = Some(name),
            }
        }
        (infos, missing)
    };
    if missing.is_none() || !infos.is_empty() {
        print(context, &infos)?;
    }
    broker.close().await?;
    match missing {
        Some(name) => {
            let message = format!("there is no subscription {name:?}");
            Err(Failure::own(Exit::NotFound, message, "check the name and --broker; subscribing makes it"))
        }
        None => Ok(Exit::Ok),
    }
}

fn print(context: &Context, infos: &[SubscriptionInfo]) -> Result<(), Failure> {
    let out = context.out;
    let age = |info: &SubscriptionInfo| info.oldest.map(|oldest| Timestamp::now().since(oldest));
    if out.json {
        return infos.iter().try_for_each(|info| {
            out.value(&json!({
                "name": info.name, "ready": info.ready, "in_flight": info.in_flight, "dead": info.dead,
                "consumers": info.consumers, "parked": info.parked,
                "order": info.order.as_ref().map(|order| json!({
                    "owners": order.owners, "waiting_keys": order.waiting_keys, "parked_keys": order.parked_keys,
                    "dead_keys": order.dead_keys,
                    "oldest_waiting_seconds": order.oldest_waiting.map(|age| age.as_secs_f64()),
                })),
                "oldest": info.oldest.map(Timestamp::as_secs_f64), "lag_seconds": age(info).map(|age| age.as_secs_f64()),
            }))
        });
    }
    if infos.is_empty() {
        out.note("There are no subscriptions yet: `tidings subscribe NAME --bind 'order.*'` makes one.");
        return Ok(());
    }
    let known = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), count);
    let mut table =
        Table::new(&["SUBSCRIPTION", ">READY", ">IN FLIGHT", ">DEAD", ">PARKED", ">CONSUMERS", ">LAG", "OLDEST"]);
    for info in infos {
        table.row([
            info.name.clone(),
            count(info.ready),
            known(info.in_flight),
            count(info.dead),
            known(info.parked),
            known(info.consumers),
            age(info).map_or_else(|| "-".to_owned(), span),
            info.oldest.map_or_else(|| "-".to_owned(), show),
        ]);
    }
    out.text(&table.render())?;
    let mut ordered = Table::new(&["ORDERED", ">WAITING KEYS", ">PARKED KEYS", ">OLDEST HEAD", "OWNERS"]);
    let mut any = false;
    for (info, order) in infos.iter().filter_map(|info| Some((info, info.order.as_ref()?))) {
        any = true;
        let owners = if order.owners.is_empty() { "nobody".to_owned() } else { order.owners.join(", ") };
        ordered.row([
            info.name.clone(),
            count(order.waiting_keys),
            count(order.parked_keys),
            order.oldest_waiting.map_or_else(|| "-".to_owned(), span),
            owners,
        ]);
    }
    if any { out.text(&ordered.render()) } else { Ok(()) }
}

//! `tidings doctor`: what could lose, stop or delay events, and what to do about it.

use clap::Args;
use serde_json::json;
use tidings::doctor::{Examination, Finding, Inventory, Level, Report};
use tidings::outbox::Tables;

use super::outbox::Place;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::redact::visible;

/// Looks at broker, permissions, queues, policies, delays and clocks. Changes nothing that lasts.
///
/// Ends with exit code 7 if there is a problem (with --strict: or a warning).
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Subscriptions to look at too (RabbitMQ does not list them)
    subscriptions: Vec<String>,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    place: Place,
    /// Warnings are problems
    #[arg(long)]
    strict: bool,
}

/// The way to what RabbitMQ shows to its operators only.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    /// Command that reaches RabbitMQ as its operator: rabbitmqctl, "docker exec broker rabbitmqctl"
    #[arg(long, value_name = "COMMAND")]
    rabbitmqctl: Option<String>,
}

impl Operator {
    /// What the operator's command shows of the virtual host of `url`; `None` if there is no command.
    pub(crate) async fn inventory(&self, url: &str) -> Result<Option<Inventory>, Failure> {
        let Some(command) = &self.rabbitmqctl else { return Ok(None) };
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let vhost = tidings::transport::amqp::virtual_host(url)?;
        let asked = tokio::task::spawn_blocking(move || Inventory::from_rabbitmqctl(&words, &vhost)).await;
        let inventory =
            asked.map_err(|e| Failure::system("rabbitmqctl was cut short", &std::io::Error::other(e)))??;
        Ok(Some(inventory))
    }
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let url = context.broker_url()?;
    let mut examination = Examination::of(&*url);
    for name in &options.subscriptions {
        examination = examination.subscription(name);
    }
    if let Some(inventory) = options.operator.inventory(&url).await? {
        examination = examination.inventory(inventory);
    }
    if let Some(store) = options.place.url() {
        examination = examination.store(store, Tables::new(&options.place.table)?);
    }
    context.out.progress("Looking …");
    let report = examination.run().await;
    context.out.progress("");
    print(context, &report)?;
    let limit = if options.strict { Level::Warning } else { Level::Problem };
    Ok(if report.worst() >= limit { Exit::Findings } else { Exit::Ok })
}

fn print(context: &Context, report: &Report) -> Result<(), Failure> {
    let out = context.out;
    for finding in &report.findings {
        if out.json {
            out.value(&json!({
                "check": finding.check.name(), "level": finding.level.name(), "subject": finding.subject,
                "message": finding.message, "remedy": finding.remedy,
            }))?;
        } else {
            out.text(&human(context, finding))?;
        }
    }
    let count = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    out.note(format!(
        "problems: {}, warnings: {}, not checked: {}, in order: {}",
        count(Level::Problem),
        count(Level::Warning),
        count(Level::Unchecked),
        count(Level::Ok) + count(Level::Note),
    ));
    Ok(())
}

fn human(context: &Context, finding: &Finding) -> String {
    let color = match finding.level {
        Level::Problem => "1;31",
        Level::Warning => "1;33",
        Level::Ok => "32",
        _ => "36",
    };
    let level = context.out.paint(color, &format!("{:<9}", finding.level.name()));
    let (check, subject, message) = (finding.check.name(), visible(&finding.subject), visible(&finding.message));
    let remedy = finding.remedy.as_ref().map(|remedy| format!("{:>28}→ {}\n", "", visible(remedy)));
    format!("{level}  {check:<15}  {subject}: {message}\n{}", remedy.unwrap_or_default())
}

//! `core/docs/reference.md`, the README's table of transports and the metrics of the operations guide say what the code does:
//! they are generated here, and compared.
//!
//! `TIDINGS_UPDATE=1 cargo test --test reference` writes them.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write as _;

use serde_json::Value;
use tidings::transport::{Capabilities, Ordered};
use tidings::{Broker, SubscriptionOptions};

fn table(file: &str) -> Vec<Value> {
    let path = format!("{}/../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn reference() -> String {
    let options = SubscriptionOptions::new("any");
    let spec = &options.spec;
    let mut page = String::from(
        "# Reference\n\nGenerated from the code (`core/tests/reference.rs`).\n\n## Defaults\n\n| option | default |\n|---|---|\n",
    );
    for (option, default) in [
        ("exchange", format!("`{}`", spec.exchange)),
        ("retry policy", options.retry.as_ref().map_or("none: an error dead-letters".into(), |r| format!("{r:?}"))),
        ("max_retries", options.max_retries.unwrap_or(0).to_string()),
        ("concurrency", options.concurrency.to_string()),
        ("prefetch", "2 × concurrency, at least 16".to_owned()),
        ("handler time-out", options.timeout.map_or("none".into(), |t| format!("{t:?}"))),
        ("dead_letter", spec.dead_letter.to_string()),
        ("max_deliveries", options.max_deliveries.to_string()),
        ("lease (SQL)", format!("{:?}", spec.lease)),
        ("max_hold", format!("{:?}", spec.max_hold)),
        ("hold_max (RabbitMQ, ordered)", format!("{:?}", spec.hold_max)),
        ("max_parked (RabbitMQ, ordered)", spec.max_parked.to_string()),
        ("partitions (RabbitMQ, ordered)", spec.partitions.to_string()),
        ("handler time-out (RabbitMQ, ordered)", "540s".to_owned()),
        ("queue type (RabbitMQ)", format!("{:?}", spec.queue_type).to_lowercase()),
        ("capture_stack", options.capture_stack.to_string()),
        ("publish_timeout", "30s".to_owned()),
        ("drain_timeout", "30s".to_owned()),
        ("max_payload", "1 MiB".to_owned()),
        ("headers of one event", "64 KiB at most".to_owned()),
    ] {
        let _infallible = writeln!(page, "| {option} | {default} |");
    }
    page.push_str("\n## Error codes\n\n`Error::code()`. *Again*: the same call can succeed later.\n\n| code | again | meaning |\n|---|---|---|\n");
    for row in table("errors.json") {
        let again = if row["retryable"] == true { "yes" } else { "" };
        let _infallible = writeln!(page, "| `{}` | {again} | {} |", text(&row, "code"), text(&row, "meaning"));
    }
    page.push_str("\n## Headers\n\n| header | meaning |\n|---|---|\n");
    for row in table("headers.json") {
        let _infallible = writeln!(page, "| `{}` | {} |", text(&row, "name"), text(&row, "meaning"));
    }
    page.push_str(
        "\n## Reasons of dead letters\n\nHandlers may give any other text.\n\n| reason | meaning |\n|---|---|\n",
    );
    for row in table("reasons.json") {
        let _infallible = writeln!(page, "| `{}` | {} |", text(&row, "name"), text(&row, "meaning"));
    }
    let _infallible = write!(page, "\n## Metrics\n\n`Broker::metrics()`.\n\n{}", metrics());
    page
}

fn metrics() -> String {
    let mut page = String::from("| name | kind | label | meaning |\n|---|---|---|---|\n");
    for row in table("metrics.json") {
        let (name, kind, label) = (text(&row, "name"), text(&row, "kind"), text(&row, "label"));
        let _infallible = writeln!(page, "| `{name}` | {kind} | {label} | {} |", text(&row, "meaning"));
    }
    page
}

/// What a transport says of itself, as a row of the README's table.
fn transport(urls: &str, purpose: &str, can: &Capabilities) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let order = match can.ordered {
        Ordered::No => "no",
        Ordered::Keyed => "yes, any process runs any key",
        Ordered::Single => "yes, one process at a time",
        _ => "yes",
    };
    let days = can.max_delay.as_secs() / 86_400;
    let delay = if days > 3_650 { "any".to_owned() } else { format!("{days} days") };
    format!(
        "| {urls} | {purpose} | {} | {} | {order} | {delay} | {} MiB | {} |\n",
        yes(can.durable),
        yes(can.multi_process),
        can.max_payload / 1024 / 1024,
        yes(can.reports_routing),
    )
}

/// Compares what stands between two marks of a page, or writes it there.
fn between(page: &str, mark: &str, wanted: &str) {
    let path = format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
    let (before, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{page} has no {start}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    if std::env::var_os("TIDINGS_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{start}{wanted}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "{page}: run TIDINGS_UPDATE=1 cargo test -p tidings --test reference");
    }
}

#[test]
fn the_operations_guide_lists_every_metric() {
    between("core/docs/operations.md", "metrics", &metrics());
}

#[tokio::test]
async fn the_readme_says_what_each_transport_can_do() {
    let Ok(rabbitmq) = std::env::var("AMQP_URL") else {
        println!(
            "skipped: AMQP_URL is not set (make services), and RabbitMQ's transport is known once it is connected"
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", dir.path().join("events.db").display());
    let mut wanted = String::from(
        "| URL | for | outlives the process | several processes | order per key | longest delay | largest body | says that nobody wanted an event |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (urls, purpose, url) in [
        ("`memory:`", "tests, one process", "memory:reference"),
        ("`sqlite:path.db`", "the embedded default: no server, one machine", &file),
        ("`amqp://`, `amqps://`", "RabbitMQ 3.10 – 4.x", &rabbitmq),
    ] {
        let broker = Broker::connect(url).await.unwrap();
        wanted.push_str(&transport(urls, purpose, &broker.capabilities()));
        broker.close().await.unwrap();
    }
    between("README.md", "transports", &wanted);
}

#[test]
fn the_reference_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
    let page = reference();
    if std::env::var_os("TIDINGS_UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        page,
        "run TIDINGS_UPDATE=1 cargo test -p tidings --test reference"
    );
}

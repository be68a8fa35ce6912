//! The benchmark rig: Tidings beside the best hand-written code over the same broker or file, in one run.
//!
//! Contenders take turns (A B A B …), so that a noisy machine is noisy for all; medians with min–max are printed and
//! `target/bench/results.json` is written. Targets are flagged, not asserted. `--help` names the options.

mod amqp;
mod amqp_consume;
mod amqp_publish;
mod embedded;
mod event;
mod growth;
mod idle;
mod latency;
mod measure;
mod node;
mod options;
mod ordered;
mod outbox;
mod outbox_cost;
mod outbox_peers;
mod python;
mod report;
mod results;
mod routing;
mod sqlite_consume;
mod sqlite_peer;
mod sqlite_publish;
mod takeover;
mod targets;
mod versions;

use std::process::ExitCode;

use measure::BoxError;
use node::Node;
use options::Options;
use results::Results;
use tidings::transport::QueueType;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    if cfg!(debug_assertions) {
        println!("bench: this is a debug build; its figures mean nothing (make bench uses --release)");
    }
    let mut results = Results::default();
    let done = if options.tables.is_empty() { measure(&options, &mut results) } else { results.merge(&options.tables) };
    results.print_targets();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let outcome = run(options, results);
    results.print();
    let written = results.write(&options.output, &versions::all());
    outcome.and(written)
}

fn run(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Runtime::new()?;
    if options.wants("routing") {
        routing::run(options, results)?;
    }
    runtime.block_on(async {
        if options.wants("sqlite publish") {
            sqlite_publish::run(options, results).await?;
        }
        if options.wants("sqlite consume") {
            sqlite_consume::run(options, results).await?;
        }
        if options.wants("sqlite ordered") {
            ordered::sqlite(options, results).await?;
        }
        if options.wants("sqlite latency") {
            let folder = tempfile::tempdir()?;
            let url = format!("sqlite:{}", folder.path().join("latency.db").display());
            latency::of_embedded(options, results, &url).await?;
        }
        if ["one by one", "in batches"].iter().any(|how| options.wants(&format!("embedded publish {how}")))
            || options.wants("embedded consume")
        {
            embedded::run(options, results).await?;
        }
        growth::run(options, results, "sqlite", None).await?;
        for server in amqp::servers() {
            growth::run(options, results, server.name, Some(&server.url)).await?;
            for classic in [false, true] {
                let kind = if classic { "classic" } else { "quorum" };
                if options.wants(&format!("{} publish {kind}", server.name)) {
                    amqp_publish::run(options, results, &server, classic).await?;
                }
                if options.wants(&format!("{} consume {kind}", server.name)) {
                    amqp_consume::run(options, results, &server, classic).await?;
                }
            }
            for kind in [QueueType::Quorum, QueueType::Classic] {
                let name = if kind == QueueType::Classic { "classic" } else { "quorum" };
                if options.wants(&format!("{} ordered {name}", server.name)) {
                    ordered::amqp(options, results, &server, kind).await?;
                }
            }
            if options.wants(&format!("{} takeover", server.name)) {
                takeover::run(options, results, &server)?;
            }
            if options.wants(&format!("{} outbox", server.name)) {
                outbox::run(options, results, &server).await?;
                outbox_cost::latency(options, results, &server).await?;
                outbox_cost::writing(options, results, &server).await?;
                outbox_cost::idle(options, results, &server).await?;
            }
            python::run(options, results, &server).await?;
            if options.wants(&format!("{} growth", server.name)) {
                outbox::growth(options, results, &server).await?;
            }
            if options.wants(&format!("{} latency", server.name)) {
                latency::run(options, results, &server).await?;
            }
            if options.wants(&format!("{} lateness", server.name)) {
                latency::of_delays(options, results, &server).await?;
            }
        }
        of_node(options, results).await
    })?;
    if options.wants("python import") {
        python::imports(options, results)?;
    }
    if options.wants("idle") {
        idle::run(results)?;
    }
    Ok(())
}

async fn of_node(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let servers = amqp::servers();
    let mut works = Vec::new();
    for server in &servers {
        for classic in [false, true] {
            let kind = if classic { "classic" } else { "quorum" };
            for work in ["publish", "consume"] {
                if options.wants(&format!("{} node {work} {kind}", server.name)) {
                    works.push((server, classic, work));
                }
            }
        }
    }
    let loading = options.wants("node require");
    if works.is_empty() && !loading {
        return Ok(());
    }
    let Some(node) = Node::prepare(options)? else { return Ok(()) };
    for (server, classic, work) in works {
        match work {
            "publish" => node::publish(&node, options, results, server, classic).await?,
            _ => node::consume(&node, options, results, server, classic).await?,
        }
    }
    if loading { node::loading(&node, results) } else { Ok(()) }
}

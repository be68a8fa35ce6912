//! The fault rig: real processes publish, consume and retry while something is killed, frozen or cut, and a ledger
//! outside of all of them counts.
//!
//! `tests/clients/PROTOCOL.md` is how the processes are driven; `--help` names the options. Exit status 1: something was
//! lost, invented or stuck.

mod case;
mod crew;
mod ledger;
mod options;
mod ordered;
mod outbox;
mod run;
mod servers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use case::Kind;
use options::Options;
use run::Verdict;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let cases = case::cases(&options);
    if options.list {
        for case in &cases {
            println!("{}", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let client = match options.client.clone().map_or_else(tidings_test_client::process::rust_client, Ok) {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("faults: {} cases, {} events each, --seed {}", cases.len(), options.events, options.seed);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let servers = outbox::Servers::new(&options.services);
    for (index, case) in cases.iter().enumerate() {
        let started = Instant::now();
        let seed = options.seed.wrapping_add(index as u64);
        let verdict = match (&case.kind, node_client()) {
            (Kind::Outbox(plan), _) => outbox::run(plan, &options, seed, &client, &servers),
            (Kind::Plain | Kind::Ordered, _) => run::run(case, &options, seed, &client),
            (Kind::Node, Some(node)) => run::run(case, &options, seed, &node),
            (Kind::Node, None) => Verdict::Skipped("the Node package is not built: tests/node addon".to_owned()),
        };
        let took = started.elapsed().as_secs_f64();
        match verdict {
            Verdict::Passed(text) => {
                passed += 1;
                println!("ok       {:<30} {text} ({took:.1} s)", case.name);
            }
            Verdict::Failed(text) => {
                failed += 1;
                println!("FAILED   {:<30} {text} ({took:.1} s; --only {} --seed {seed})", case.name, case.name);
            }
            Verdict::Skipped(why) => {
                skipped += 1;
                println!("SKIPPED  {:<30} {why}", case.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The client in Node, if the package that it uses is built.
fn node_client() -> Option<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let node = tests.join("../node");
    let built = node.join("dist/index.js").exists() && node.join("prebuilds").exists();
    built.then(|| tests.join("clients/node/client"))
}

//! The fault rig: real processes publish, consume and retry while something is killed, frozen or cut, and a ledger
//! outside of all of them counts.
//!
//! `tests/clients/PROTOCOL.md` is how the processes are driven; `--help` names the options. Exit status 1: something was
//! lost, invented, out of order or stuck.

mod case;
mod clocks;
mod crew;
mod fault;
mod ledger;
mod options;
mod ordered;
mod outbox;
mod place;
mod proxy;
mod run;
mod servers;
mod tally;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use case::{Case, Client, Kind};
use options::Options;
use outbox::Servers;
use run::Verdict;
use tally::Tally;

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
    let rig = Rig { options: &options, client, servers: Rc::new(Servers::new(&options.services)) };
    let mut score = Score::default();
    let (events, seed) = (options.events, options.seed);
    if let Some(minutes) = options.minutes {
        println!("faults: {minutes} minutes of {} cases, {events} events each, --seed {seed}", cases.len());
        let (until, mut rng) = (Instant::now() + Duration::from_secs(60 * minutes), fastrand::Rng::with_seed(seed));
        while Instant::now() < until
            && let Some(case) = rng.choice(&cases)
        {
            rig.run(case, rng.u64(..1_000_000), &mut score);
        }
    } else {
        println!("faults: {} cases, {events} events each, --seed {seed}", cases.len());
        for (index, case) in (0..).zip(&cases) {
            rig.run(case, seed.wrapping_add(index), &mut score);
        }
    }
    println!("{}", score.tally);
    println!("{} passed, {} failed, {} skipped", score.passed, score.failed, score.skipped);
    if score.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What all cases need.
struct Rig<'a> {
    options: &'a Options,
    client: PathBuf,
    servers: Rc<Servers>,
}

#[derive(Default)]
struct Score {
    passed: u32,
    failed: u32,
    skipped: u32,
    tally: Tally,
}

impl Rig<'_> {
    fn run(&self, case: &Case, seed: u64, score: &mut Score) {
        let started = Instant::now();
        let verdict = match self.client_of(&case.kind) {
            Err(why) => Verdict::Skipped(why),
            Ok(client) => match &case.kind {
                Kind::Outbox(plan) => outbox::run(plan, self.options, seed, &client, &self.servers),
                _ => run::run(case, self.options, seed, &client, &self.servers),
            },
        };
        let took = started.elapsed().as_secs_f64();
        let report = match verdict {
            Verdict::Ran(report) => report,
            Verdict::Skipped(why) => {
                score.skipped += 1;
                return println!("SKIPPED  {:<30} {why}", case.name);
            }
        };
        score.tally += report.tally;
        if report.wrong.is_empty() {
            score.passed += 1;
            println!("ok       {:<30} {} ({took:.1} s)", case.name, report.text);
        } else {
            score.failed += 1;
            let size = if self.options.long { format!(" --events {}", self.options.events) } else { String::new() };
            let again = format!("--only {} --seed {seed}{size}", case.name);
            println!("FAILED   {:<30} {}; {} ({took:.1} s; {again})", case.name, report.text, report.wrong.join("; "));
        }
    }

    /// The program of a case's clients, or what has to be built first.
    fn client_of(&self, kind: &Kind) -> Result<PathBuf, String> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (language, built, how) = match kind {
            Kind::Plain(Client::Node) => {
                let node = tests.join("../node");
                ("node", node.join("dist/index.js").exists() && node.join("prebuilds").exists(), "tests/node addon")
            }
            Kind::Plain(Client::Python) => {
                ("python", tests.join("../python/tidings/_native.abi3.so").exists(), "tests/python module")
            }
            _ => return Ok(self.client.clone()),
        };
        if built { Ok(tests.join(format!("clients/{language}/client"))) } else { Err(format!("build it first: {how}")) }
    }
}

//! The suite (`tidings::testkit`) on every transport of this build.
//!
//! ```text
//! cargo test --features testkit --test suite -- sqlite retry     only what has both words in its name
//! ```
//!
//! What failed is said again at the end. RabbitMQ is looked for at `AMQP_URL` and `AMQP4_URL`. A broker that does not answer is skipped, and said to be. The
//! last line is `N passed, N failed, N skipped`. Called as `suite child <url>`, the program is the second process of a
//! scenario.
#![allow(clippy::expect_used, reason = "a test program")]

#[path = "suite/arguments.rs"]
mod arguments;
#[path = "suite/subjects.rs"]
mod subjects;

use std::process::ExitCode;

use arguments::Arguments;
use tidings::testkit::{self, Report, Subject, Verdict};

#[derive(Default)]
struct Total {
    passed: usize,
    /// What failed, to be said once more at the end.
    failures: Vec<String>,
    skipped: usize,
}

impl Total {
    fn add(&mut self, subject: &str, report: &Report) {
        self.passed += report.passed();
        self.skipped += report.refused();
        let failed = report.verdicts.iter().filter(|(_, verdict, _)| matches!(verdict, Verdict::Failed(_)));
        self.failures.extend(failed.map(|(scenario, verdict, _)| format!("{subject}: {scenario} … {verdict}")));
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Arguments::Child(url) => return child(&url),
        Arguments::List => return ExitCode::SUCCESS,
        run @ Arguments::Run(_) => run,
    };
    let mut total = Total::default();
    play(&mut total, &arguments, subjects::Memory::new(true));
    play(&mut total, &arguments, subjects::Memory::new(false));
    #[cfg(feature = "sqlite")]
    play(&mut total, &arguments, subjects::Sqlite::new());
    #[cfg(feature = "amqp")]
    for subject in subjects::Amqp::all() {
        play(&mut total, &arguments, subject);
    }
    for failure in &total.failures {
        println!("{failure}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failures.len(), total.skipped);
    if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays the suite on one subject, in a runtime of its own.
fn play(total: &mut Total, arguments: &Arguments, subject: impl Subject) {
    let name = subject.name();
    let wanted = |scenario: &testkit::Scenario| arguments.want(&format!("{name}: {}", scenario.name()));
    if !testkit::scenarios().iter().any(wanted) {
        return;
    }
    let mut builder = if subject.virtual_time() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.start_paused(true);
        builder
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if let Err(error) = subject.connect().await
            && error.code() == "CONNECTION_FAILED"
        {
            println!("SKIPPED: {name}: {error}");
            total.skipped += 1;
            return;
        }
        let started = std::time::Instant::now();
        let report = testkit::run(subject, wanted).await;
        println!(
            "{name}: {} passed, {} failed, {} refused in {:.1} s",
            report.passed(),
            report.failed(),
            report.refused(),
            started.elapsed().as_secs_f64()
        );
        total.add(&name, &report);
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
}

fn child(url: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served = runtime.expect("a runtime").block_on(async {
        let broker = tidings::Broker::connect(url).await?;
        testkit::serve(broker).await
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

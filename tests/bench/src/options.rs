//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

const USAGE: &str = "tidings-bench [--quick] [--rounds N] [--seconds S] [--output FILE] [--table FILE] [--only NAME] [FILTER ...]

  --quick      two short rounds: shows that everything runs, not how fast
  --rounds N   alternations (5)
  --seconds S  length of one measurement (2.5)
  --output F   target/bench/results.json
  --table FILE prints the table of what is aimed at from what earlier runs have written, and measures nothing; may be given
               several times, the last measurement of a work counts
  --only NAME  only contenders whose name contains it (for a profiler): tidings, lapin, 'batches of' …
  FILTER       only works whose name contains it: routing, idle, 'sqlite publish', 'rabbitmq3 consume quorum', latency …

RabbitMQ is measured where AMQP_URL and AMQP4_URL name one: eval \"$(tests/services env)\"";

/// Options of one run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Alternations.
    pub(crate) rounds: usize,
    /// Length of one measurement.
    pub(crate) length: Duration,
    /// Where the results go.
    pub(crate) output: PathBuf,
    /// Results of earlier runs, of which only the table is wanted.
    pub(crate) tables: Vec<PathBuf>,
    only: Option<String>,
    filters: Vec<String>,
    quick: bool,
}

impl Options {
    /// Reads the command line; the error is what to print.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            rounds: 5,
            length: Duration::from_millis(2500),
            output: default_output(),
            tables: Vec::new(),
            only: None,
            filters: Vec::new(),
            quick: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
            match argument.as_str() {
                "--quick" => {
                    (options.rounds, options.length, options.quick) = (2, Duration::from_millis(400), true);
                }
                "--rounds" => options.rounds = value()?.parse().map_err(|_| USAGE.to_owned())?,
                "--seconds" => {
                    let seconds = value()?.parse().map_err(|_| USAGE.to_owned())?;
                    options.length = Duration::try_from_secs_f64(seconds).map_err(|_| USAGE.to_owned())?;
                }
                "--output" => options.output = value()?.into(),
                "--table" => options.tables.push(value()?.into()),
                "--only" => options.only = Some(value()?),
                flag if flag.starts_with('-') => return Err(USAGE.to_owned()),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options.rounds = options.rounds.max(1);
        Ok(options)
    }

    /// Whether only to show that everything runs.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    /// Whether this work is to be measured.
    pub(crate) fn wants(&self, work: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| work.contains(filter.as_str()))
    }

    /// Whether the contender of this name is to be measured.
    pub(crate) fn lets_in(&self, contender: &str) -> bool {
        self.only.as_ref().is_none_or(|only| contender.contains(only.as_str()))
    }

    /// How many events a measurement at about `rate` events per second takes.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
    pub(crate) fn events(&self, rate: f64) -> usize {
        (rate * self.length.as_secs_f64()) as usize
    }
}

fn default_output() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || {
            std::env::var_os("CARGO_MANIFEST_DIR")
                .map_or_else(|| "target".into(), |rig| PathBuf::from(rig).join("../../target"))
        },
        PathBuf::from,
    );
    target.join("bench/results.json")
}

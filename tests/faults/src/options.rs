//! What the command line asks for.

use std::path::PathBuf;

const USAGE: &str =
    "tidings-faults [--short] [--events N] [--minutes N] [--seed N] [--only TEXT] [--client PROGRAM] [--services PROGRAM] [--list]

  --short       a few thousand events a case, in about a minute (the default)
  --events N    N events a case, every fault alone, several times
  --minutes N   cases and seeds at random until the time is over (20,000 events each, or --events)
  --keys FILE   ordering keys of the events, one a line: those of a real year from tests/faults/year (Rust's client)
  --seed N      makes the same choices again (printed at the start)
  --only TEXT   only cases whose name contains TEXT, or is it if TEXT ends with a dot; may be given several times
  --client P    a client of another language (tests/clients/PROTOCOL.md)
  --services P  what controls the servers (tests/services)
  --list        names the cases

Brokers: sqlite always; RabbitMQ where AMQP_URL and AMQP4_URL name one (eval \"$(tests/services env)\").";

/// Options of one run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Events of one case.
    pub(crate) events: u64,
    /// The long profile.
    pub(crate) long: bool,
    /// Cases at random for so long.
    pub(crate) minutes: Option<u64>,
    /// Ordering keys.
    pub(crate) keys: Option<PathBuf>,
    /// Makes choices repeatable.
    pub(crate) seed: u64,
    /// Parts of the names of the cases to run; empty: all.
    pub(crate) only: Vec<String>,
    /// Client program.
    pub(crate) client: Option<PathBuf>,
    /// Controls the servers.
    pub(crate) services: PathBuf,
    /// Only names the cases.
    pub(crate) list: bool,
}

impl Options {
    /// Reads the command line; the error is what to print.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let folder = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| "tests/faults".into(), PathBuf::from);
        let services = folder.join("../services");
        let seed = fastrand::u64(..) % 1_000_000;
        let mut options = Self {
            events: 2000,
            long: false,
            minutes: None,
            keys: None,
            seed,
            only: Vec::new(),
            client: None,
            services,
            list: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number\n\n{USAGE}"));
            match argument.as_str() {
                "--short" => {}
                "--events" => (options.events, options.long) = (number(value()?)?.max(100), true),
                "--keys" => options.keys = Some(absolute(&value()?)?),
                "--minutes" => options.minutes = Some(number(value()?)?),
                "--seed" => options.seed = number(value()?)?,
                "--only" => options.only.push(value()?),
                "--client" => options.client = Some(value()?.into()),
                "--services" => options.services = value()?.into(),
                "--list" => options.list = true,
                _ => return Err(USAGE.to_owned()),
            }
        }
        if options.minutes.is_some() && !options.long {
            (options.events, options.long) = (20_000, true);
        }
        Ok(options)
    }

    /// Whether a case of this name is to be run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let wanted =
            |text: &String| text.strip_suffix('.').map_or_else(|| name.contains(text.as_str()), |whole| name == whole);
        self.only.is_empty() || self.only.iter().any(wanted)
    }
}

/// Clients may have another folder than we have.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))
}

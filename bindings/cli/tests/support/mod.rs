//! The binary in a folder of its own, and the brokers that it is run against.
#![allow(dead_code, reason = "every test binary uses its part")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The password that must never be seen.
pub(crate) const CANARY: &str = "canary-4711";

/// A folder in which the command runs, against one broker.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    /// Subscription, and first word of the routing keys, of this test.
    pub(crate) name: String,
}

impl World {
    pub(crate) fn at(url: &str) -> Self {
        let id = tidings::event::new_id();
        Self { folder: tempfile::tempdir().unwrap(), url: url.to_owned(), name: format!("cli-{id}") }
    }

    pub(crate) fn sqlite() -> Self {
        let world = Self::at("");
        Self { url: format!("sqlite:{}", world.folder.path().join("events.db").display()), ..world }
    }

    /// One on a file, and one on each RabbitMQ that can be reached.
    pub(crate) fn all() -> Vec<Self> {
        let mut worlds = vec![Self::sqlite()];
        for (variable, default) in
            [("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"), ("AMQP4_URL", "amqp://guest:guest@127.0.0.1:5674")]
        {
            let url = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
            match runtime().block_on(tidings::Broker::connect(&url)) {
                Ok(_) => worlds.push(Self::at(&url)),
                Err(error) => println!("SKIPPED: {variable}: {error}"),
            }
        }
        worlds
    }

    pub(crate) fn key(&self, word: &str) -> String {
        format!("{}.{word}", self.name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // The packages of other languages offer the same command: theirs is tested by naming it.
        let program = std::env::var_os("TIDINGS_TEST_CLI").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidings").into());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TIDINGS_BROKER_URL", &self.url)
            .env_remove("TIDINGS_STORE_URL")
            .env("COLUMNS", "100")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(arguments, self.command(arguments).output().unwrap())
    }

    pub(crate) fn run_with(&self, input: &str, arguments: &[&str]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command that does not want all of it may end first.
        let _early = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran::of(arguments, child.wait_with_output().unwrap())
    }

    /// Makes the test's subscription, bound to all of its routing keys.
    pub(crate) fn subscribe(&self) {
        self.run(&["subscribe", &self.name, "--bind", &self.key("#"), "--timeout", "1ms"]).ok();
    }

    pub(crate) fn publish(&self, word: &str, data: &str) -> String {
        self.run(&["publish", &self.key(word), data]).ok().trim().to_owned()
    }

    /// Makes dead letters of everything that waits.
    pub(crate) fn kill(&self, events: usize) {
        let limit = events.to_string();
        let command =
            ["subscribe", &self.name, "--limit", &limit, "--exec", "sh", "-c", "echo no address >&2; exit 65"];
        self.run(&command).ok();
    }

    pub(crate) fn info(&self) -> serde_json::Value {
        serde_json::from_str(self.run(&["subscriptions", &self.name, "--json"]).ok().trim()).unwrap()
    }

    pub(crate) fn done(self) {
        runtime().block_on(async {
            let broker = tidings::Broker::connect(&self.url).await.unwrap();
            broker.delete_subscription(&self.name).await.unwrap();
            broker.close().await.unwrap();
        });
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    arguments: String,
}

impl Ran {
    pub(crate) fn of(arguments: &[&str], output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
            arguments: arguments.join(" "),
        };
        assert!(!ran.out.contains(CANARY) && !ran.err.contains(CANARY), "a password shows: {ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
        ran
    }

    /// What it printed, if it went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    pub(crate) fn fails(self, code: i32, says: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(says), "{says:?} is not said: {self:?}");
        self
    }
}

/// Compares with a file; `TIDINGS_UPDATE=1` writes it.
pub(crate) fn snapshot(path: &Path, text: &str) {
    if std::env::var_os("TIDINGS_UPDATE").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(stored, text, "{}: run TIDINGS_UPDATE=1 cargo test -p tidings-cli", path.display());
}

//! Starts the services as processes of their own, hears what they report, and sees to it that none is left over.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tidings::{BROKER_URL_VARIABLE, BoxError};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::role::{
    DATA_VARIABLE, DIR_VARIABLE, NODE_VARIABLE, PACE_VARIABLE, PREFIX_VARIABLE, PYTHON_VARIABLE, Report,
};
use crate::story::{Counts, Story};

/// Nothing at all has moved for so long: the day will not end any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the services are told when they start.
pub(crate) struct Setting {
    pub(crate) broker_url: String,
    pub(crate) prefix: String,
    pub(crate) dir: PathBuf,
    pub(crate) data: PathBuf,
    /// So many times faster than the day was; 0: as fast as operations can.
    pub(crate) pace: u32,
}

/// A service, and what runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Operations,
    Relay,
    Notifier,
    AircraftLog,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Relay => "relay",
            Self::Notifier => "notifier",
            Self::AircraftLog => "aircraft-log",
        }
    }

    /// `make demo` says which Python has the package.
    fn command(self) -> Result<Command, BoxError> {
        let here = |file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let interpreter = |variable, usual: &str| std::env::var_os(variable).unwrap_or_else(|| usual.into());
        let (program, argument) = match self {
            Self::Operations => (interpreter(PYTHON_VARIABLE, "python3"), here("operations.py").into_os_string()),
            Self::Relay => (interpreter(PYTHON_VARIABLE, "python3"), here("relay.py").into_os_string()),
            Self::Notifier => (interpreter(NODE_VARIABLE, "node"), here("notifier.js").into_os_string()),
            Self::AircraftLog => (std::env::current_exe()?.into_os_string(), self.name().into()),
        };
        let mut command = Command::new(program);
        command.arg(argument);
        Ok(command)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) struct Stage {
    setting: Setting,
    pub(crate) story: Story,
    pub(crate) counts: Counts,
    services: BTreeMap<Service, Running>,
    sender: mpsc::UnboundedSender<(Service, Heard)>,
    inbox: mpsc::UnboundedReceiver<(Service, Heard)>,
}

/// A running service. Dropped, it is killed; and it ends by itself when its stdin does, whatever became of us.
struct Running {
    child: Child,
    stdin: ChildStdin,
}

/// Nothing has moved for a minute; something is lost.
#[derive(Debug)]
pub(crate) struct Stuck(String);

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nothing has moved for {} s while the director waited for this: {}", PATIENCE.as_secs(), self.0)
    }
}

impl std::error::Error for Stuck {}

enum Heard {
    Line(String),
    Ended,
}

impl Stage {
    pub(crate) fn new(setting: Setting, story: Story) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        Self { setting, story, counts: Counts::new(), services: BTreeMap::new(), sender, inbox }
    }

    /// Starts a service and waits until it is ready.
    pub(crate) async fn start(&mut self, service: Service, args: &[&str]) -> Result<(), BoxError> {
        let mut command = service.command()?;
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.env(BROKER_URL_VARIABLE, &self.setting.broker_url);
        command.env(PREFIX_VARIABLE, &self.setting.prefix).env(DIR_VARIABLE, &self.setting.dir);
        command.env(DATA_VARIABLE, &self.setting.data).env(PACE_VARIABLE, self.setting.pace.to_string());
        // Node's SQLite says that it is experimental.
        command.env("NODE_NO_WARNINGS", "1");
        // Ctrl-C is for the director, who then ends the others.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| format!("cannot start {service}: {e}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{service} was started without pipes").into());
        };
        tokio::spawn(listen(service, stdout, self.sender.clone()));
        self.services.insert(service, Running { child, stdin });
        let ready = format!("{service} is ready");
        self.counts.remove(&ready);
        self.until(&ready, |counts| counts.contains_key(&ready)).await
    }

    /// Hears the services until their counts say that it is `done`.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Counts) -> bool) -> Result<(), BoxError> {
        while !done(&self.counts) {
            if let Some(service) = self.hear(what).await? {
                return Err(format!("{service} ended while the day was not over, before: {what}").into());
            }
        }
        Ok(())
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Lets a service finish what it has in hand, and end.
    pub(crate) async fn stop(&mut self, service: Service) -> Result<(), BoxError> {
        let Some(Running { mut child, stdin }) = self.services.remove(&service) else { return Ok(()) };
        drop(stdin);
        self.last_words(service).await?;
        let status = child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("{service} ended with {status}").into()) }
    }

    /// kill -9. Returns the process id that the service had.
    pub(crate) async fn kill(&mut self, service: Service) -> Result<u32, BoxError> {
        let Some(Running { mut child, stdin }) = self.services.remove(&service) else { return Ok(0) };
        let id = child.id().unwrap_or(0);
        child.kill().await?;
        drop(stdin);
        self.last_words(service).await?;
        Ok(id)
    }

    /// Ends whatever still runs, at once.
    pub(crate) async fn clear(&mut self) {
        for (_, mut running) in std::mem::take(&mut self.services) {
            // It may have ended by itself in this moment, which is as good.
            let _ended = running.child.kill().await;
        }
    }

    async fn last_words(&mut self, service: Service) -> Result<(), BoxError> {
        loop {
            match self.hear("its end").await? {
                Some(ended) if ended == service => return Ok(()),
                Some(other) => return Err(format!("{other} ended while the day was not over").into()),
                None => {}
            }
        }
    }

    /// Takes in one line. Returns the name of a service whose output has ended.
    async fn hear(&mut self, waiting_for: &str) -> Result<Option<Service>, BoxError> {
        let heard = tokio::time::timeout(PATIENCE, self.inbox.recv()).await;
        let Ok(Some((service, heard))) = heard else {
            return Err(Stuck(waiting_for.to_owned()).into());
        };
        let line = match heard {
            Heard::Line(line) => line,
            Heard::Ended => return Ok(Some(service)),
        };
        match line.parse().map_err(|e| format!("{service}: {e}"))? {
            Report::Ready => {
                self.counts.insert(format!("{service} is ready"), 1);
            }
            Report::Count(what, n) => {
                // Handlers run side by side, so a smaller figure may be written after a larger one.
                let highest = self.counts.entry(what).or_default();
                *highest = n.max(*highest);
                self.story.progress(&self.counts);
            }
            Report::Say(text) => self.story.say(service.name(), &text),
            Report::Failed(why) => return Err(format!("{service} failed: {why}").into()),
        }
        Ok(None)
    }
}

/// Passes on what a service writes, until its output ends, which is when the process does.
async fn listen(service: Service, stdout: ChildStdout, sender: mpsc::UnboundedSender<(Service, Heard)>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if sender.send((service, Heard::Line(line))).is_err() {
            return;
        }
    }
    // The director is gone if nobody receives it.
    let _unheard = sender.send((service, Heard::Ended));
}

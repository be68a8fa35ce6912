//! Starts the services as processes of their own, hears what they report, and sees to it that none is left over.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tidings::{BROKER_URL_VARIABLE, BoxError};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::role::{DIR_VARIABLE, PREFIX_VARIABLE, Report};
use crate::story::{Counts, Story};

/// Nothing at all has moved for so long: the day will not end any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the services are told when they start.
pub(crate) struct Setting {
    pub(crate) broker_url: String,
    pub(crate) prefix: String,
    pub(crate) dir: PathBuf,
}

pub(crate) struct Stage {
    setting: Setting,
    pub(crate) story: Story,
    pub(crate) counts: Counts,
    services: BTreeMap<&'static str, Service>,
    sender: mpsc::UnboundedSender<(&'static str, Heard)>,
    inbox: mpsc::UnboundedReceiver<(&'static str, Heard)>,
}

/// A running service. Dropped, it is killed; and it ends by itself when its stdin does, whatever became of us.
struct Service {
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

    /// Starts `airport <name> <args>` and waits until it is ready.
    pub(crate) async fn start(&mut self, name: &'static str, args: &[&str]) -> Result<(), BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(name).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.env(BROKER_URL_VARIABLE, &self.setting.broker_url);
        command.env(PREFIX_VARIABLE, &self.setting.prefix).env(DIR_VARIABLE, &self.setting.dir);
        // Ctrl-C is for the director, who then ends the others.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{name} was started without pipes").into());
        };
        tokio::spawn(listen(name, stdout, self.sender.clone()));
        self.services.insert(name, Service { child, stdin });
        let ready = format!("{name} is ready");
        self.counts.remove(&ready);
        self.until(&ready, |counts| counts.contains_key(&ready)).await
    }

    /// Hears the services until their counts say that it is `done`.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Counts) -> bool) -> Result<(), BoxError> {
        while !done(&self.counts) {
            if let Some(name) = self.hear(what).await? {
                return Err(format!("{name} ended while the day was not over, before: {what}").into());
            }
        }
        Ok(())
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Gives a service a command.
    pub(crate) async fn tell(&mut self, name: &'static str, command: &str) -> Result<(), BoxError> {
        let service = self.services.get_mut(name).ok_or_else(|| format!("{name} is not running"))?;
        service.stdin.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(service.stdin.flush().await?)
    }

    /// Lets a service finish what it has in hand, and end.
    pub(crate) async fn stop(&mut self, name: &'static str) -> Result<(), BoxError> {
        let Some(Service { mut child, stdin }) = self.services.remove(name) else { return Ok(()) };
        drop(stdin);
        self.last_words(name).await?;
        let status = child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}").into()) }
    }

    /// kill -9. Returns the process id that the service had.
    pub(crate) async fn kill(&mut self, name: &'static str) -> Result<u32, BoxError> {
        let Some(Service { mut child, stdin }) = self.services.remove(name) else { return Ok(0) };
        let id = child.id().unwrap_or(0);
        child.kill().await?;
        drop(stdin);
        self.last_words(name).await?;
        Ok(id)
    }

    /// Ends whatever still runs, at once.
    pub(crate) async fn clear(&mut self) {
        for (_, mut service) in std::mem::take(&mut self.services) {
            // It may have ended by itself in this moment, which is as good.
            let _ended = service.child.kill().await;
        }
    }

    async fn last_words(&mut self, name: &'static str) -> Result<(), BoxError> {
        loop {
            match self.hear("its end").await? {
                Some(ended) if ended == name => return Ok(()),
                Some(other) => return Err(format!("{other} ended while the day was not over").into()),
                None => {}
            }
        }
    }

    /// Takes in one line. Returns the name of a service whose output has ended.
    async fn hear(&mut self, waiting_for: &str) -> Result<Option<&'static str>, BoxError> {
        let heard = tokio::time::timeout(PATIENCE, self.inbox.recv()).await;
        let Ok(Some((name, heard))) = heard else {
            return Err(Stuck(waiting_for.to_owned()).into());
        };
        let line = match heard {
            Heard::Line(line) => line,
            Heard::Ended => return Ok(Some(name)),
        };
        match line.parse().map_err(|e| format!("{name}: {e}"))? {
            Report::Ready => {
                self.counts.insert(format!("{name} is ready"), 1);
            }
            Report::Count(what, n) => {
                // Handlers run side by side, so a smaller figure may be written after a larger one.
                let highest = self.counts.entry(what).or_default();
                *highest = n.max(*highest);
                self.story.progress(&self.counts);
            }
            Report::Say(text) => self.story.say(name, &text),
            Report::Failed(why) => return Err(format!("{name} failed: {why}").into()),
        }
        Ok(None)
    }
}

/// Passes on what a service writes, until its output ends, which is when the process does.
async fn listen(name: &'static str, stdout: ChildStdout, sender: mpsc::UnboundedSender<(&'static str, Heard)>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if sender.send((name, Heard::Line(line))).is_err() {
            return;
        }
    }
    // The director is gone if nobody receives it.
    let _unheard = sender.send((name, Heard::Ended));
}

//! [`Child`]: a second process on the same broker, driven line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{self, Stdio};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::Subject;
use super::victim::Handed;
use crate::BoxError;

/// A process of [`Subject::child`]. Killed when dropped.
pub(super) struct Child {
    process: process::Child,
    answers: UnboundedReceiver<String>,
    patience: Duration,
}

impl Child {
    pub(super) fn start(subject: &dyn Subject, patience: Duration) -> Result<Self, BoxError> {
        let mut command = subject.child().ok_or("the subject has no child")?;
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let (sender, answers) = unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, answers, patience })
    }

    /// Says a line without waiting for the answer.
    pub(super) fn say(&mut self, line: &str) -> Result<(), BoxError> {
        let stdin = self.process.stdin.as_mut().ok_or("no standard input")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<String, BoxError> {
        let answer = timeout(self.patience, self.answers.recv()).await.map_err(|_| "the child does not answer")?;
        let answer = answer.ok_or("the child has ended")?;
        match answer.strip_prefix("error ") {
            Some(error) => Err(format!("the child: {error}").into()),
            None => Ok(answer),
        }
    }

    /// Says a line and gives the answer.
    pub(super) async fn ask(&mut self, line: &str) -> Result<String, BoxError> {
        self.say(line)?;
        self.answer().await.map_err(|error| format!("{line}: {error}").into())
    }

    /// Asks for deliveries and keeps them in the child's hands.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Handed>, BoxError> {
        let answer = self.ask(&format!("next {max}")).await?;
        let events = answer.strip_prefix("events").ok_or_else(|| format!("unexpected: {answer}"))?;
        events.split_whitespace().map(Handed::parse).collect()
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub(super) fn kill(mut self) -> Result<(), BoxError> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

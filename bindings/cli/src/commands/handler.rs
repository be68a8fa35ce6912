//! A command as a handler: the event on its stdin, its exit code as the outcome.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tidings::event::name;
use tidings::settlement::reason;
use tidings::{DomainEvent, Failure as HandlerFailure, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::event::Line;
use crate::exit::{Exit, HandlerExit};
use crate::failure::Failure;

/// The end of the command's stderr that a dead letter keeps, in bytes.
const STDERR_KEPT: usize = 2048;
/// Longer values are not put into the environment, which the system bounds.
const MAX_VARIABLE: usize = 32 * 1024;
/// Reason of a dead letter that the command asked for.
const REJECTED: &str = "rejected";

/// A command that is run for every event.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) command: Vec<String>,
    pub(super) subscription: String,
    pub(super) timeout: Option<Duration>,
}

impl Handler {
    /// Runs the command for one event. An error means that it could not be started, which is not the event's fault.
    pub(super) async fn run(&self, event: &DomainEvent) -> Result<Outcome, Failure> {
        let mut line = Line::new(event, Some(&self.subscription))?.to_json()?;
        line.push('\n');
        let mut child = self.spawn(event)?;
        let mut group = Group::of(&child);
        let handled = async {
            let stdin = child.stdin.take();
            let stderr = child.stderr.take();
            let ((), tail) = tokio::join!(feed(stdin, &line), forward(stderr));
            child.wait().await.map(|status| (status, tail))
        };
        let limit = self.timeout.unwrap_or(Duration::MAX);
        let Ok(ended) = tokio::time::timeout(limit, handled).await else {
            return Ok(failed("Timeout", format!("the command ran longer than {limit:?}"), reason::TIMEOUT));
        };
        group.ended();
        let (status, tail) = ended.map_err(|e| Failure::system("the command's end cannot be seen", &e))?;
        Ok(outcome(status, tail))
    }

    fn spawn(&self, event: &DomainEvent) -> Result<Child, Failure> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| Failure::usage("no command is named", "give it behind --exec"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Named, because to inherit it is not enough in a host that marks its own as close-on-exec, as Node does.
        command.stdout(std::io::stdout());
        // Ctrl-C is for us: commands that run get the time to finish.
        #[cfg(unix)]
        command.process_group(0);
        for (name, value) in self.variables(event) {
            if let Some(value) = value.filter(|value| value.len() <= MAX_VARIABLE) {
                command.env(name, value.replace('\0', "\u{fffd}"));
            } else {
                command.env_remove(name);
            }
        }
        command.spawn().map_err(|e| {
            let message = format!("{program} cannot be run: {e}");
            Failure::own(Exit::Failed, message, "give a program that can be executed; its events were given back")
        })
    }

    fn variables(&self, event: &DomainEvent) -> [(&'static str, Option<String>); 9] {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        [
            ("TIDINGS_SUBSCRIPTION", Some(self.subscription.clone())),
            ("TIDINGS_ROUTING_KEY", owned(Some(event.routing_key()))),
            ("TIDINGS_EVENT_ID", owned(Some(event.id()))),
            ("TIDINGS_TIMESTAMP", Some(event.timestamp().to_string())),
            ("TIDINGS_RETRIES", Some(event.retries().to_string())),
            ("TIDINGS_DOMAIN_OBJECT_ID", owned(event.domain_object_id())),
            ("TIDINGS_KEY", owned(event.key())),
            ("TIDINGS_TENANT", owned(event.tenant())),
            ("TIDINGS_TRACEPARENT", owned(event.headers().text(name::TRACEPARENT))),
        ]
    }
}

/// The processes that a command has started: ended with it when it is given up on.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self {
            #[cfg(unix)]
            leader: child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)),
        }
    }

    /// It ended by itself: what it left running is its own affair.
    fn ended(&mut self) {
        #[cfg(unix)]
        {
            self.leader = None;
        }
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader
            && let Err(error) = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "the command's processes were gone already");
        }
    }
}

/// Writes the event. A command that does not read it may still succeed.
async fn feed(stdin: Option<tokio::process::ChildStdin>, line: &str) {
    if let Some(mut stdin) = stdin
        && let Err(error) = stdin.write_all(line.as_bytes()).await
    {
        tracing::debug!(%error, "the command did not read its event");
    }
}

/// Passes the command's stderr on, and returns the end of it.
async fn forward(stderr: Option<tokio::process::ChildStderr>) -> String {
    let mut tail: Vec<u8> = Vec::new();
    let Some(mut stderr) = stderr else { return String::new() };
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let piece = &buffer[..length];
        let _nobody_listens = std::io::Write::write_all(&mut std::io::stderr(), piece);
        tail.extend_from_slice(piece);
        tail.drain(..tail.len().saturating_sub(STDERR_KEPT));
    }
    String::from_utf8_lossy(&tail).trim().to_owned()
}

fn outcome(status: ExitStatus, tail: String) -> Outcome {
    let message = (!tail.is_empty()).then(|| tail.clone());
    let code = status.code();
    let is = |exit: HandlerExit| code == Some(exit.code().into());
    if is(HandlerExit::Ack) {
        Outcome::Ok
    } else if is(HandlerExit::Retry) {
        Outcome::Retry { after: None, message }
    } else if is(HandlerExit::DeadLetter) {
        Outcome::DeadLetter { reason: REJECTED.to_owned(), message }
    } else {
        let error_type = code.map_or_else(|| "Signal".to_owned(), |code| format!("Exit{code}"));
        failed(&error_type, if tail.is_empty() { status.to_string() } else { tail }, reason::ERROR)
    }
}

fn failed(error_type: &str, message: String, reason: &'static str) -> Outcome {
    Outcome::Fail(HandlerFailure::new([error_type], message).with_reason(reason))
}

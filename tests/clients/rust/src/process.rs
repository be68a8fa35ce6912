//! The rigs' end: a client process, its commands, and everything it says.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::protocol::{Line, Request};

/// Something that a client said without being asked, or its end.
#[derive(Debug)]
pub struct Said {
    /// The client's number.
    pub client: usize,
    /// When it was read.
    pub at: Instant,
    /// What it said; `None`: its pipe ended.
    pub line: Option<Line>,
}

/// A client process.
pub struct Client {
    /// Which one, in everything it says.
    pub number: usize,
    child: Child,
    input: Option<ChildStdin>,
    answers: Arc<Answers>,
    next: u64,
}

#[derive(Default)]
struct Answers {
    state: Mutex<(Vec<Line>, bool)>,
    changed: Condvar,
}

impl Client {
    /// Starts `program`; what it says without being asked goes to `heard`.
    pub fn start(program: &Path, number: usize, heard: Sender<Said>) -> std::io::Result<Self> {
        Self::spawn(&mut Program::new(program), number, heard)
    }

    /// Starts a program that knows a secret: a line of its output or of its log that has it is heard as `leaked`.
    pub fn guard(program: &mut Program, number: usize, heard: Sender<Said>, secret: &str) -> std::io::Result<Self> {
        let mut client = Self::spawn_with(program.stderr(Stdio::piped()), number, heard.clone(), Some(secret))?;
        let (log, secret) = (client.child.stderr.take(), secret.to_owned());
        std::thread::spawn(move || {
            let lines = log.map(|log| BufReader::new(log).split(b'\n'));
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                eprintln!("{line}");
                look(&line, Some(&secret), number, &heard);
            }
        });
        Ok(client)
    }

    /// Starts a program with arguments.
    pub fn spawn(program: &mut Program, number: usize, heard: Sender<Said>) -> std::io::Result<Self> {
        Self::spawn_with(program, number, heard, None)
    }

    fn spawn_with(
        program: &mut Program,
        number: usize,
        heard: Sender<Said>,
        secret: Option<&str>,
    ) -> std::io::Result<Self> {
        let secret = secret.map(str::to_owned);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| std::io::Error::other("the client has no stdout"))?;
        let answers = Arc::new(Answers::default());
        let theirs = answers.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                look(&line, secret.as_deref(), number, &heard);
                // The last line of a killed process may be half a line: it was not said.
                let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
                if line.n == 0 {
                    // The rig may have seen enough.
                    let _nobody_listens = heard.send(Said { client: number, at: Instant::now(), line: Some(line) });
                } else {
                    theirs.lock().0.push(line);
                    theirs.changed.notify_all();
                }
            }
            theirs.lock().1 = true;
            theirs.changed.notify_all();
            let _nobody_listens = heard.send(Said { client: number, at: Instant::now(), line: None });
        });
        Ok(Self { number, child, input, answers, next: 1 })
    }

    /// Sends a command and returns its number.
    pub fn send(&mut self, command: impl Serialize) -> Result<u64, String> {
        let n = self.next;
        self.next += 1;
        let mut line = serde_json::to_vec(&Request { n, command }).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let input = self.input.as_mut().ok_or("its stdin is closed")?;
        input.write_all(&line).and_then(|()| input.flush()).map_err(|e| format!("client {}: {e}", self.number))?;
        Ok(n)
    }

    /// The answer to command `n`, if it is there.
    pub fn answer(&self, n: u64) -> Option<Line> {
        let mut state = self.answers.lock();
        let at = state.0.iter().position(|line| line.n == n)?;
        Some(state.0.swap_remove(at))
    }

    /// Waits for the answer to command `n`.
    pub fn wait(&self, n: u64, timeout: Duration) -> Result<Line, String> {
        let deadline = Instant::now() + timeout;
        let mut state = self.answers.lock();
        loop {
            if let Some(at) = state.0.iter().position(|line| line.n == n) {
                let line = state.0.swap_remove(at);
                return match line.error {
                    Some(error) => Err(format!("{}: {}: {}", line.did, error.code, error.message)),
                    None => Ok(line),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return Err(format!("client {}: no answer within {timeout:?}", self.number));
            }
            state = self.answers.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, command: impl Serialize, timeout: Duration) -> Result<Line, String> {
        let n = self.send(command)?;
        self.wait(n, timeout)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }

    /// Sends a signal by name: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        let status = Program::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        status.map_err(|e| e.to_string())?.success().then_some(()).ok_or_else(|| format!("kill -{name} failed"))
    }

    /// Closes its input and waits for its end; kills it if it does not come.
    pub fn finish(mut self, timeout: Duration) -> Result<(), String> {
        self.input = None;
        let deadline = Instant::now() + timeout;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("client {} ended with {status}", self.number)),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    self.kill();
                    return Err(format!("client {} did not end within {timeout:?}", self.number));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, (Vec<Line>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a line has the secret in it.
fn look(line: &str, secret: Option<&str>, client: usize, heard: &Sender<Said>) {
    if secret.is_some_and(|secret| line.contains(secret)) {
        let leaked = serde_json::json!({"did": "leaked", "line": line});
        let line = serde_json::from_value(leaked).ok();
        // The rig may have seen enough.
        let _nobody_listens = heard.send(Said { client, at: Instant::now(), line });
    }
}

/// The Rust client beside the running rig, built first if cargo runs us.
pub fn rust_client() -> Result<PathBuf, String> {
    let rig = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = rig.parent().ok_or("the rig has no folder")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Program::new(cargo);
        build.args(["build", "--quiet", "-p", "tidings-test-client"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        if !build.status().map_err(|e| e.to_string())?.success() {
            return Err("the Rust client does not build".into());
        }
    }
    let client = folder.join(format!("tidings-test-client{}", std::env::consts::EXE_SUFFIX));
    client.exists().then_some(client).ok_or_else(|| "build it first: cargo build -p tidings-test-client".into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_heard_of_wherever_it_is_printed() {
        let (speak, heard) = std::sync::mpsc::channel();
        let mut program = Program::new("sh");
        program.args(["-c", "echo the canary sings; echo no bird; echo canary >&2; cat >/dev/null"]);
        let client = Client::guard(&mut program, 1, speak, "canary").unwrap_or_else(|e| panic!("{e}"));
        let next = || heard.recv_timeout(Duration::from_secs(30)).ok().and_then(|said| said.line);
        let mut lines: Vec<_> = (0..2).filter_map(|_| next()).map(|line| line.rest["line"].to_string()).collect();
        lines.sort();
        assert_eq!(lines, ["\"canary\"", "\"the canary sings\""]);
        assert!(client.finish(Duration::from_secs(30)).is_ok());
    }
}

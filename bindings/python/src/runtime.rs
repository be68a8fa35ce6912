//! One Tokio runtime for each process, made on first use.
//!
//! `fork` copies the memory of a runtime and none of its threads. So every process has a home of its own, found by its
//! process id; the one that a child inherits stays in memory, untouched.

use std::future::Future;
use std::pin::pin;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tidings::{Error, ErrorKind};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::raise;
use crate::log;

/// Between two looks for a signal (Ctrl-C) while a call waits.
const SLICE: Duration = Duration::from_millis(50);
/// At interpreter exit, the longest wait for threads that wait in the engine.
const LEAVING: Duration = Duration::from_secs(2);

/// What a process has of the engine.
pub(crate) struct Home {
    pid: u32,
    pub(crate) runtime: Runtime,
    pub(crate) log: log::Queue,
    /// The interpreter is about to end.
    leaving: AtomicBool,
    /// Threads that wait in the engine, without the interpreter.
    waiting: AtomicUsize,
}

/// Homes of this process and of those it was forked from.
struct Link {
    home: Home,
    next: OnceLock<Box<Link>>,
}

static FIRST: OnceLock<Box<Link>> = OnceLock::new();

/// The home of this process, if it has one by now. Takes no lock: a log line may ask at any time, and so may a fork.
pub(crate) fn existing() -> Option<&'static Home> {
    let pid = process::id();
    let mut place = &FIRST;
    while let Some(link) = place.get() {
        if link.home.pid == pid {
            return Some(&link.home);
        }
        place = &link.next;
    }
    None
}

/// The home of this process. The caller is attached to the interpreter, so that no fork can come in between.
pub(crate) fn home(py: Python<'_>) -> PyResult<&'static Home> {
    if let Some(home) = existing() {
        return Ok(home);
    }
    let made = Home::start().map_err(|e| PyRuntimeError::new_err(format!("the engine's threads cannot start: {e}")))?;
    let mut link = Box::new(Link { home: made, next: OnceLock::new() });
    let mut place = &FIRST;
    loop {
        match place.set(link) {
            Ok(()) => break,
            Err(mine) => link = mine,
        }
        // Set, since `set` was refused.
        let Some(taken) = place.get() else { continue };
        if taken.home.pid == process::id() {
            // Another thread was faster (free-threaded interpreters only).
            link.home.runtime.shutdown_background();
            return home(py);
        }
        place = &taken.next;
    }
    let home = home(py)?;
    log::start(py, home)?;
    py.import("tidings._exit")?.call_method0("register")?;
    Ok(home)
}

impl Home {
    fn start() -> std::io::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4));
        let runtime =
            Builder::new_multi_thread().worker_threads(workers).thread_name("tidings").enable_all().build()?;
        Ok(Self {
            pid: process::id(),
            runtime,
            log: log::Queue::default(),
            leaving: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        })
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(SeqCst)
    }
}

/// Whether this process has threads of the engine.
#[pyfunction]
pub(crate) fn threads_started() -> bool {
    existing().is_some()
}

/// Ends every wait, because the interpreter ends: a thread must not come back to an interpreter that is gone.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let Some(home) = existing() else { return };
    home.leaving.store(true, SeqCst);
    py.detach(|| {
        let until = Instant::now() + LEAVING;
        while home.waiting.load(SeqCst) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        home.log.stop();
    });
}

/// Finishes what is being written to files and closes them, until the fork is over.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    py.detach(tidings::host::before_fork);
}

/// Lets files be opened again.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    tidings::host::after_fork_in_parent();
}

/// Lets the child begin anew.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    tidings::host::after_fork_in_child();
}

/// Waits for `future` on this thread, without the interpreter lock, looking for signals in between.
///
/// Not `Runtime::block_on` with a timer: a timer that is due soon wakes the runtime's driver, for every call.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = tidings::Result<T>> + Send) -> PyResult<T> {
    let home = home(py)?;
    if Handle::try_current().is_ok() {
        return Err(PyRuntimeError::new_err("a hook of the engine cannot wait for the engine"));
    }
    let signal = Arc::new(Signal { thread: thread::current(), given: AtomicBool::new(false) });
    let waker = Waker::from(signal.clone());
    let mut future = pin!(future);
    loop {
        if home.is_leaving() {
            return Err(raise(py, &gone()));
        }
        home.waiting.fetch_add(1, SeqCst);
        let done = py.detach(|| {
            // What the future spawns, and its timers, are the runtime's.
            let inside = home.runtime.enter();
            let until = Instant::now() + SLICE;
            let done = loop {
                if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    break Some(done);
                }
                if !signal.wait(until) {
                    break None;
                }
            };
            drop(inside);
            home.waiting.fetch_sub(1, SeqCst);
            done
        });
        match done {
            Some(Ok(value)) => return Ok(value),
            Some(Err(error)) => return Err(raise(py, &error)),
            None => py.check_signals()?,
        }
    }
}

/// Wakes a thread that waits.
struct Signal {
    thread: Thread,
    given: AtomicBool,
}

impl Signal {
    /// Whether it was given by then.
    fn wait(&self, until: Instant) -> bool {
        while !self.given.swap(false, SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.given.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the interpreter is shutting down")
}

/// Something that belongs to the process that made it: used in a forked child it is an error, dropped there it is left alone.
pub(crate) struct Owned<T> {
    pid: u32,
    /// Taken by `drop` only.
    value: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { pid: process::id(), value: Some(value) }
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.pid == process::id() => Ok(value),
            _ => {
                let error =
                    Error::new(ErrorKind::ForkedClient, "this was opened before a fork, and is used in the child");
                Err(raise(py, &error.remedy("open it in the child")))
            }
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        if self.pid == process::id() {
            // Entered, so that what spawns while it is dropped finds the runtime.
            let _inside = existing().map(|home| home.runtime.enter());
            drop(value);
        } else {
            // Its locks may be held by threads that do not exist here.
            std::mem::forget(value);
        }
    }
}

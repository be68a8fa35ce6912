//! The engine's log lines, on their way to `logging.getLogger("tidings")`.
//!
//! A thread of the engine must never wait for the interpreter: a handler may hold it for minutes while heartbeats go on.
//! So log lines go into a bounded queue, and one thread of their own takes them to Python.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::runtime::{self, Home};

/// Lines that wait for Python; more are counted and dropped.
const MOST: usize = 1000;

/// Python's number of the least level that somebody listens to.
static LEVEL: AtomicU8 = AtomicU8::new(20);

struct Line {
    level: u8,
    text: String,
}

/// Lines on their way.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    dropped: usize,
    stopped: bool,
    ended: bool,
}

impl Queue {
    fn push(&self, line: Line) {
        let mut state = self.state.lock();
        if state.stopped {
            return;
        }
        if state.lines.len() >= MOST {
            state.dropped += 1;
            return;
        }
        state.lines.push_back(line);
        self.wake.notify_one();
    }

    /// What there is; `None` once it is stopped and empty.
    fn take(&self) -> Option<(Vec<Line>, usize)> {
        let mut state = self.state.lock();
        while state.lines.is_empty() && !state.stopped {
            self.wake.wait(&mut state);
        }
        if state.lines.is_empty() {
            return None;
        }
        Some((state.lines.drain(..).collect(), std::mem::take(&mut state.dropped)))
    }

    /// Writes what is left and ends the thread, within a second.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        self.wake.notify_all();
        let until = Instant::now() + Duration::from_secs(1);
        while !state.ended && Instant::now() < until {
            self.wake.wait_for(&mut state, Duration::from_millis(20));
        }
    }

    fn ended(&self) {
        self.state.lock().ended = true;
        self.wake.notify_all();
    }
}

/// Begins to log for this process.
pub(crate) fn start(py: Python<'_>, home: &'static Home) -> PyResult<()> {
    refresh_log_level(py)?;
    // Refused in a forked child, where the parent's is in force and finds the child's queue.
    let _first = tracing::subscriber::set_global_default(ToPython);
    std::thread::Builder::new().name("tidings-log".to_owned()).spawn(move || {
        while let Some((lines, dropped)) = home.log.take() {
            // `None`: the interpreter is gone, and with it whoever would read them.
            let written = Python::try_attach(|py| write(py, &lines, dropped));
            if written.is_none() {
                break;
            }
        }
        home.log.ended();
    })?;
    Ok(())
}

/// Looks at what level `logging.getLogger("tidings")` listens to. Done whenever a broker is connected.
#[pyfunction]
pub(crate) fn refresh_log_level(py: Python<'_>) -> PyResult<()> {
    let level: i64 = logger(py)?.call_method0("getEffectiveLevel")?.extract()?;
    // Below DEBUG there is nothing for a user of the engine to see.
    LEVEL.store(u8::try_from(level.clamp(10, 255)).unwrap_or(u8::MAX), Relaxed);
    Ok(())
}

fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("logging")?.call_method1("getLogger", ("tidings",))
}

fn write(py: Python<'_>, lines: &[Line], dropped: usize) {
    let all = || -> PyResult<()> {
        let logger = logger(py)?;
        for line in lines {
            logger.call_method1("log", (line.level, "%s", &line.text))?;
        }
        if dropped > 0 {
            logger.call_method1(
                "warning",
                ("%d log lines were dropped: they came faster than they were written", dropped),
            )?;
        }
        Ok(())
    };
    if let Err(error) = all() {
        error.write_unraisable(py, None);
    }
}

/// Hands events of the engine's crates over; spans have no meaning for `logging`.
struct ToPython;

impl Subscriber for ToPython {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && metadata.target().starts_with("tidings")
            && number(*metadata.level()) >= LEVEL.load(Relaxed)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        if metadata.is_event() && metadata.target().starts_with("tidings") && *metadata.level() <= Level::DEBUG {
            tracing::subscriber::Interest::sometimes()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(home) = runtime::existing() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        home.log.push(Line { level: number(*event.metadata().level()), text: text.message + &text.fields });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a string cannot fail.
        let _infallible = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

//! Results for an asyncio loop: many at once, with one wake-up.
//!
//! What an awaitable waits for runs on the engine's threads. Its result goes into a queue; the first one in an empty
//! queue writes a byte to a socket that the loop reads, and the loop then takes all there are. No thread of the engine
//! needs the interpreter for that, so a loop that is busy holds nothing up.

use std::future::Future;
use std::io::{Read as _, Write as _};
#[cfg(unix)]
use std::os::fd::AsRawFd as _;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
#[cfg(not(unix))]
use pyo3::exceptions::PyNotImplementedError;
use pyo3::intern;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::error::raise;
use crate::runtime::{Owned, home};

type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The results for one loop. Registered with `loop.add_reader(bridge.fileno(), bridge.deliver)`.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Bridge {
    inner: Owned<Inner>,
}

struct Inner {
    done: Arc<Done>,
    #[cfg(unix)]
    reader: UnixStream,
}

struct Done {
    queue: Mutex<Vec<(Py<PyAny>, Answer)>>,
    #[cfg(unix)]
    writer: UnixStream,
}

impl Done {
    fn push(&self, future: Py<PyAny>, answer: Answer) {
        self.extend([(future, answer)]);
    }

    fn extend(&self, answers: impl IntoIterator<Item = (Py<PyAny>, Answer)>) {
        let mut queue = self.queue.lock();
        let before = queue.len();
        queue.extend(answers);
        let first = before == 0 && !queue.is_empty();
        drop(queue);
        if first {
            self.wake();
        }
    }

    #[cfg(unix)]
    fn wake(&self) {
        // A full pipe wakes the loop as well, and a closed one has nobody to wake.
        let _woken = (&self.writer).write(&[1]);
    }
}

#[pymethods]
impl Bridge {
    #[new]
    #[cfg(unix)]
    fn new(py: Python<'_>) -> PyResult<Self> {
        // Before the first operation, so that what it raises is raised here.
        home(py)?;
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let done = Arc::new(Done { queue: Mutex::default(), writer });
        Ok(Self { inner: Owned::new(Inner { done, reader }) })
    }

    #[new]
    #[cfg(not(unix))]
    fn new() -> PyResult<Self> {
        Err(PyNotImplementedError::new_err("tidings.aio needs a loop with add_reader, which this platform has not"))
    }

    /// What the loop has to read.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        #[cfg(unix)]
        return Ok(self.inner.get(py)?.reader.as_raw_fd());
        #[cfg(not(unix))]
        return Err(PyNotImplementedError::new_err("no add_reader"));
    }

    /// Gives every result that is there to its future. Called by the loop.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner.get(py)?;
        #[cfg(unix)]
        {
            // One byte is written for each time that the queue was empty.
            let mut bytes = [0; 64];
            while (&inner.reader).read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
        }
        let done = std::mem::take(&mut *inner.done.queue.lock());
        for (future, answer) in done {
            let future = future.bind(py);
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                // Cancelled. Dropping the answer gives back what is in it.
                continue;
            }
            match answer(py) {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
            };
        }
        Ok(())
    }
}

impl Bridge {
    /// Runs `operation` on the engine's threads; `future` gets what `convert` makes of its result.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        future: &Bound<'_, PyAny>,
        operation: impl Future<Output = tidings::Result<T>> + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Running> {
        let py = future.py();
        let done = self.inner.get(py)?.done.clone();
        let future = future.clone().unbind();
        let task = home(py)?.runtime.spawn(async move {
            let result = operation.await;
            done.push(
                future,
                Box::new(move |py| match result {
                    Ok(value) => convert(py, value),
                    Err(error) => Err(raise(py, &error)),
                }),
            );
        });
        Ok(Running { task: task.abort_handle() })
    }
}

impl Bridge {
    /// Runs an operation that has one result for each future, in order.
    pub(crate) fn start_many<T: Send + 'static>(
        &self,
        py: Python<'_>,
        futures: Vec<Py<PyAny>>,
        operation: impl Future<Output = Vec<tidings::Result<T>>> + Send + 'static,
        convert: impl Fn(Python<'_>, T) -> PyResult<Py<PyAny>> + Copy + Send + 'static,
    ) -> PyResult<()> {
        let done = self.inner.get(py)?.done.clone();
        home(py)?.runtime.spawn(async move {
            let results = operation.await;
            done.extend(futures.into_iter().zip(results).map(|(future, result)| {
                let answer: Answer = Box::new(move |py| match result {
                    Ok(value) => convert(py, value),
                    Err(error) => Err(raise(py, &error)),
                });
                (future, answer)
            }));
        });
        Ok(())
    }
}

/// An operation under way.
#[pyclass(frozen, module = "tidings._native")]
pub(crate) struct Running {
    task: AbortHandle,
}

#[pymethods]
impl Running {
    /// Gives it up. Its future gets nothing.
    fn cancel(&self) {
        self.task.abort();
    }
}

/// For operations without a result.
#[allow(clippy::unnecessary_wraps, reason = "as every other conversion")]
pub(crate) fn nothing<T>(py: Python<'_>, _: T) -> PyResult<Py<PyAny>> {
    Ok(py.None())
}

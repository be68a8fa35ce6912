//! Where the work runs: one runtime per process, started with the first broker, or one with a clock of its own for tests.

use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use tidings::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads beyond these only add switching: a thread moves some 100,000 events a second.
const MAX_THREADS: usize = 4;

static SHARED: OnceLock<Runtime> = OnceLock::new();

/// The process's runtime. Nothing runs before the first call, so that loading the addon starts no thread.
pub(crate) fn shared() -> Result<Handle> {
    if let Some(runtime) = SHARED.get() {
        return Ok(runtime.handle().clone());
    }
    let threads = thread::available_parallelism().map_or(2, usize::from).min(MAX_THREADS);
    let runtime =
        Builder::new_multi_thread().worker_threads(threads).thread_name("tidings").enable_all().build().map_err(
            |error| Error::new(ErrorKind::Internal, "the threads of the runtime cannot be started").source(error),
        )?;
    // If another thread was first, this one ends unused.
    Ok(SHARED.get_or_init(|| runtime).handle().clone())
}

/// A runtime of its own whose clock stands still until it is told to go on.
pub(crate) struct VirtualTime {
    handle: Handle,
    /// Dropping it ends the runtime's thread.
    _until: mpsc::Sender<()>,
}

impl VirtualTime {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Arc<Self>> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Internal, "the thread of the virtual clock cannot be started").source(error)
        };
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (until, ended) = mpsc::channel::<()>();
        thread::Builder::new()
            .name("tidings-test".into())
            .spawn(move || {
                runtime.block_on(async {
                    // A blocking task keeps Tokio from moving the clock by itself. It ends when the sender is dropped.
                    let _disconnected = tokio::task::spawn_blocking(move || ended.recv()).await;
                });
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Arc::new(Self { handle, _until: until }))
    }

    /// Where its work runs.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

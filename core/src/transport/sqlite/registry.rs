//! One store for each file and process.
//!
//! SQLite locks files with POSIX locks. They belong to the process, and closing any descriptor of a file drops all of
//! them: two copies of SQLite in one process on one file let two writers in. So openers of the same file get the same
//! store, and a file that somebody else in this process has open is refused.

use std::collections::HashMap;
use std::fs::{self, Metadata, OpenOptions};
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::open::start;
use super::store::{Store, forked};
use super::url::Options;
use crate::{Error, ErrorKind, Result};

/// How long an opener waits for a store that is just being closed.
const CLOSING: Duration = Duration::from_secs(10);

static OPEN: LazyLock<Mutex<HashMap<FileId, Slot>>> = LazyLock::new(Mutex::default);
static CLOSED: Condvar = Condvar::new();

struct Slot {
    pid: u32,
    store: Weak<Store>,
}

/// What a file is, whatever its path.
#[cfg(unix)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

#[cfg(unix)]
impl FileId {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        fs::metadata(path).map(|meta| Self::from(&meta))
    }
}

#[cfg(unix)]
impl From<&Metadata> for FileId {
    fn from(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

#[cfg(not(unix))]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileId(std::path::PathBuf);

#[cfg(not(unix))]
impl FileId {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        path.canonicalize().map(Self)
    }
}

/// The store of the file that `options` name, opened if this process has not. Blocks.
pub(super) fn open(options: &Options) -> Result<Arc<Store>> {
    let path = &options.path;
    let deadline = Instant::now() + CLOSING;
    // In a child this lock may be held by a thread that only the parent has.
    let mut open = OPEN.try_lock_for(CLOSING + options.busy_timeout).ok_or_else(|| forked(path))?;
    create(path)?;
    loop {
        let id = FileId::of(path).map_err(|e| unreachable_file(path, e))?;
        let Some(slot) = open.get(&id) else {
            refuse_shared(path, &id)?;
            let store = start(options, id.clone())?;
            open.insert(id, Slot { pid: std::process::id(), store: Arc::downgrade(&store) });
            return Ok(store);
        };
        if slot.pid != std::process::id() {
            return Err(forked(path));
        }
        if let Some(store) = slot.store.upgrade() {
            let options = options.clone();
            store.post(move |tx| {
                tx.state.options.merge(&options);
                tx.state.options_changed = true;
                Ok(())
            });
            return Ok(store);
        }
        if CLOSED.wait_until(&mut open, deadline).timed_out() {
            return Err(Error::new(ErrorKind::StoreBusy, "the store is still being closed by this process")
                .field("path", path.display())
                .remedy("try again"));
        }
    }
}

/// Says that the thread of a store has closed its file.
pub(super) fn forget(id: &FileId) {
    OPEN.lock().remove(id);
    CLOSED.notify_all();
}

/// Creates the file for its owner alone (SQLite gives `-wal` and `-shm` the same mode). A file that exists is not
/// opened here: closing it again would drop the locks of whoever has it open.
fn create(path: &Path) -> Result<()> {
    let mut how = OpenOptions::new();
    how.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    match how.open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == Io::AlreadyExists => {
            if fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
                return Err(Error::new(ErrorKind::ConnectionFailed, "the path names a folder")
                    .field("path", path.display())
                    .remedy("name a file in it"));
            }
            Ok(())
        }
        Err(e) => Err(unreachable_file(path, e)),
    }
}

fn unreachable_file(path: &Path, error: std::io::Error) -> Error {
    let folder = path.parent().unwrap_or(path).display();
    let (kind, message, remedy) = match error.kind() {
        Io::NotFound | Io::NotADirectory => (
            ErrorKind::ConnectionFailed,
            "the folder of the store does not exist",
            format!("create {folder}, or name another path"),
        ),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => (
            ErrorKind::StoreReadOnly,
            "the store cannot be created",
            format!("make {folder} writable for this user, or name another path"),
        ),
        Io::StorageFull | Io::QuotaExceeded => {
            (ErrorKind::StoreFull, "the disk has no room for the store", "free space, or name another path".to_owned())
        }
        _ => (ErrorKind::ConnectionFailed, "the store cannot be reached", "check the path".to_owned()),
    };
    Error::new(kind, message).field("path", path.display()).remedy(remedy).source(error)
}

/// Refuses a file that this process has open by other means than ours, where the system can tell.
#[cfg(target_os = "linux")]
fn refuse_shared(path: &Path, id: &FileId) -> Result<()> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return Ok(()) };
    // Follows the link, so a file that was renamed is found, and opens nothing.
    let shared = descriptors.flatten().any(|fd| FileId::of(&fd.path()).is_ok_and(|other| other == *id));
    if !shared {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::StoreSharedInProcess,
        "something else in this process has the file open, and a second copy of SQLite on it would corrupt it",
    )
    .field("path", path.display())
    .remedy("give Tidings a file of its own, or close the other connection first"))
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
fn refuse_shared(_: &Path, _: &FileId) -> Result<()> {
    Ok(())
}

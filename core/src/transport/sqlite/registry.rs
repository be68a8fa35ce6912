//! One store for each file and process.
//!
//! SQLite locks files with POSIX locks. They belong to the process, and closing any descriptor of a file drops all of
//! them: two copies of SQLite in one process on one file let two writers in. So openers of the same file get the same
//! store, and a file that somebody else in this process has open is refused.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, OpenOptions};
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use super::open::start;
use super::store::{Store, forked};
use super::url::Options;
use crate::host::Process;
use crate::{Error, ErrorKind, Result};

/// How long an opener waits for a store that is just being closed.
const CLOSING: Duration = Duration::from_secs(10);

/// The standard library's lock: unlike others it may be let go of in the child of a fork.
static FILES: Mutex<Files> = Mutex::new(Files { forking: false, open: BTreeMap::new() });
static CHANGED: Condvar = Condvar::new();
/// The process whose threads use the lock; 0 before the first.
static USERS: AtomicU32 = AtomicU32::new(0);

struct Files {
    /// This process is about to fork: nothing may be opened.
    forking: bool,
    open: BTreeMap<FileId, Slot>,
}

struct Slot {
    home: Process,
    store: Weak<Store>,
    /// Its thread has let go of the file for a fork.
    away: bool,
}

type Held = MutexGuard<'static, Files>;

/// `None` in the child of a fork that happened while another thread had the lock, which nobody lets go of any more.
fn files() -> Option<Held> {
    let users = USERS.load(Relaxed);
    let held = if users == 0 || Process::from_id(users).is_here() {
        FILES.lock().unwrap_or_else(PoisonError::into_inner)
    } else {
        match FILES.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        }
    };
    USERS.store(std::process::id(), Relaxed);
    Some(held)
}

fn wait(held: Held) -> Held {
    CHANGED.wait(held).unwrap_or_else(PoisonError::into_inner)
}

/// All files of this process are closed as long as this is held, and none is opened.
pub(crate) struct HeldFiles(Option<Held>);

impl HeldFiles {
    /// Waits until every store's thread has let go of its file.
    pub(crate) fn hold() -> Option<Self> {
        let mut held = files()?;
        while held.forking {
            held = wait(held);
        }
        held.forking = true;
        let here = Process::here();
        for store in held.open.values().filter(|slot| slot.home == here).filter_map(|slot| slot.store.upgrade()) {
            store.let_go();
        }
        // A store that is just being closed leaves by itself.
        while held.open.values().any(|slot| slot.home == here && !slot.away) {
            held = wait(held);
        }
        Some(Self(Some(held)))
    }

    /// In the child: the files that were let go of are nobody's here.
    pub(crate) fn begin_anew(&mut self) {
        if let Some(held) = &mut self.0 {
            held.open.retain(|_, slot| !slot.away);
            USERS.store(std::process::id(), Relaxed);
        }
    }
}

impl Drop for HeldFiles {
    fn drop(&mut self) {
        if let Some(mut held) = self.0.take() {
            held.forking = false;
            drop(held);
            CHANGED.notify_all();
        }
    }
}

/// Says that the thread of a store has let go of its file, and waits until the fork is over.
pub(super) fn stand_aside(id: &FileId) {
    let Some(mut held) = files() else { return };
    set_away(&mut held, id, true);
    CHANGED.notify_all();
    while held.forking {
        held = wait(held);
    }
    set_away(&mut held, id, false);
}

fn set_away(held: &mut Held, id: &FileId, away: bool) {
    if let Some(slot) = held.open.get_mut(id) {
        slot.away = away;
    }
}

/// What a file is, whatever its path.
#[cfg(unix)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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
    let mut held = files().ok_or_else(|| forked(path))?;
    let mut created = false;
    loop {
        while held.forking {
            held = wait(held);
        }
        if !created {
            if options.create {
                create(path)?;
            } else {
                require(path)?;
            }
            created = true;
        }
        let id = FileId::of(path).map_err(|e| unreachable_file(path, e))?;
        let Some(slot) = held.open.get(&id) else {
            if !options.shared {
                refuse_shared(path, &id)?;
            }
            let store = start(options, id.clone())?;
            held.open.insert(id, Slot { home: Process::here(), store: Arc::downgrade(&store), away: false });
            return Ok(store);
        };
        if !slot.home.is_here() {
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
        let left = deadline.saturating_duration_since(Instant::now());
        held = CHANGED.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        if left.is_zero() {
            return Err(Error::new(ErrorKind::StoreBusy, "the store is still being closed by this process")
                .field("path", path.display())
                .remedy("try again"));
        }
    }
}

/// Says that the thread of a store has closed its file.
pub(super) fn forget(id: &FileId) {
    if let Some(mut held) = files() {
        held.open.remove(id);
    }
    CHANGED.notify_all();
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

/// Refuses to go on without the file.
fn require(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ConnectionFailed, "there is no store of this name")
        .field("path", path.display())
        .remedy("check the path and the working directory; publishing or subscribing makes the file"))
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
    .remedy("give Tidings a file of its own, or another process; only where both are one copy (Rust: rusqlite, sqlx) add shared=true"))
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
fn refuse_shared(_: &Path, _: &FileId) -> Result<()> {
    Ok(())
}

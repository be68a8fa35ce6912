//! What SQLite's errors mean to a caller.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::{Error, ErrorKind};

/// Why a piece of work did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Refused before anything was written: the rest of its transaction goes on.
    Refused(Error),
    /// SQLite failed: the transaction is void.
    Store(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    pub(super) fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Store(error) => typed(path, error),
        }
    }
}

/// Result of work inside a transaction.
pub(super) type Step<T> = Result<T, Fault>;

/// Whether another connection holds the lock.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The typed error for what SQLite said about the file at `path`.
pub(super) fn typed(path: &Path, error: rusqlite::Error) -> Error {
    let (kind, message, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            ErrorKind::StoreReadOnly,
            "the store cannot be written",
            "make the file and its folder writable for this user",
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::StoreCorrupt, "the file is not a SQLite database", "name another file, or move this one away")
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::StoreCorrupt,
            "the store is damaged",
            "stop all its users, keep a copy with its -wal file, and try sqlite3's .recover on it",
        ),
        Some(ErrorCode::DiskFull) => (
            ErrorKind::StoreFull,
            "the disk is full",
            "free space; nothing was half-written and the store goes on by itself",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => (
            ErrorKind::StoreBusy,
            "another process held the store's lock for longer than the busy time-out",
            "try again, end long transactions on the file, or raise busy_timeout in the URL",
        ),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::ConnectionFailed,
            "the store cannot be opened",
            "check that the path names a file this user can open",
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::ConnectionFailed, "the disk or file system failed", "check the disk and the system's log")
        }
        Some(ErrorCode::TooBig) => (
            ErrorKind::PayloadTooLarge,
            "the event is larger than SQLite can hold",
            "keep large content elsewhere and refer to it",
        ),
        _ => (ErrorKind::Internal, "SQLite refused a statement of Tidings", "report this with the cause"),
    };
    Error::new(kind, message).field("path", path.display()).remedy(remedy).source(error)
}

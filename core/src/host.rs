//! For hosts of other languages: what a process that forks has to say to the core.
//!
//! `fork` copies a process with one of its threads. Sockets, runtimes and locks of the others are copied too and work
//! no more, and SQLite's table of file locks is copied although the locks stay the parent's. So a handle belongs to the
//! [`Process`] that made it, and a process that forks says so:
//!
//! ```
//! use tidings::host;
//!
//! host::before_fork();
//! // … fork() …
//! # let in_the_child = false;
//! if in_the_child {
//!     host::after_fork_in_child();
//! } else {
//!     host::after_fork_in_parent(); // also when the fork has failed
//! }
//! ```
//!
//! | | with the three calls | without |
//! |---|---|---|
//! | in the parent | everything goes on | everything goes on |
//! | in the child: handles of the parent | `FORKED_CLIENT` | `FORKED_CLIENT` |
//! | in the child: connecting anew | works | works, but a SQLite file that the parent had open answers `FORKED_CLIENT` |
//!
//! Python hands the three to `os.register_at_fork(before=…, after_in_parent=…, after_in_child=…)`.

use std::cell::RefCell;

use crate::{Error, ErrorKind, Result};

/// The process that a handle was made in. Cheap: a number, and one system call to compare it.
///
/// ```
/// use tidings::host::Process;
///
/// let home = Process::here();
/// assert!(home.check().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process(u32);

impl Process {
    /// This process.
    pub fn here() -> Self {
        Self(std::process::id())
    }

    /// Whether this is still the same process.
    pub fn is_here(self) -> bool {
        self == Self::here()
    }

    /// `FORKED_CLIENT` in another process, where every wait for a thread of the first one would be for ever.
    pub fn check(self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(forked()) }
    }

    pub(crate) fn from_id(id: u32) -> Self {
        Self(id)
    }

    /// Another process than this one.
    #[cfg(test)]
    pub(crate) fn elsewhere() -> Self {
        Self(std::process::id() + 1)
    }
}

pub(crate) fn forked() -> Error {
    Error::new(ErrorKind::ForkedClient, "the handle was made before a fork and is used in the child")
        .remedy("connect in the child")
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// What stands still while a process forks.
#[derive(Default)]
struct Held {
    /// Calls of `before_fork` on this thread that wait for their end.
    depth: usize,
    _ids: Option<crate::event::HeldIds>,
    #[cfg(feature = "sqlite")]
    files: Option<crate::transport::sqlite::HeldFiles>,
}

/// To be called on the thread that is about to fork: finishes the transactions under way, closes every SQLite file, and
/// keeps files from being opened until the fork is over. Blocks as long as that takes, at most for the files'
/// `busy_timeout`. A host with an interpreter lock gives it up meanwhile.
///
/// Publishes, settlements and consumers on those files wait; none of them fails.
pub fn before_fork() {
    HELD.with_borrow_mut(|slot| {
        let held = slot.get_or_insert_with(Held::hold);
        held.depth += 1;
    });
}

/// To be called on the same thread once the fork is over, in the parent: files are opened again, and what waited goes on.
pub fn after_fork_in_parent() {
    HELD.with_borrow_mut(|slot| {
        if let Some(held) = slot {
            held.depth -= 1;
            if held.depth == 0 {
                drop(slot.take());
            }
        }
    });
}

/// To be called first thing in the child: files that the parent had open may be opened here too.
///
/// Handles that were made before the fork answer `FORKED_CLIENT`; connect again.
pub fn after_fork_in_child() {
    #[cfg(feature = "sqlite")]
    HELD.with_borrow_mut(|slot| {
        if let Some(files) = slot.as_mut().and_then(|held| held.files.as_mut()) {
            files.begin_anew();
        }
    });
    after_fork_in_parent();
}

/// Whether this thread is between `before_fork` and its end.
pub(crate) fn is_forking_here() -> bool {
    // While it is being entered or left, it counts as such.
    HELD.with(|slot| slot.try_borrow().map_or(true, |held| held.is_some()))
}

impl Held {
    fn hold() -> Self {
        Self {
            // Files first: their threads may need an id to finish.
            #[cfg(feature = "sqlite")]
            files: crate::transport::sqlite::HeldFiles::hold(),
            _ids: crate::event::HeldIds::hold(),
            depth: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_made_a_handle_goes_on() {
        assert!(Process::here().check().is_ok());
        let error = Process::elsewhere().check().unwrap_err();
        assert_eq!((error.code(), error.retryable()), ("FORKED_CLIENT", false));
    }

    #[test]
    fn a_fork_that_failed_leaves_everything_as_it_was() {
        before_fork();
        before_fork();
        after_fork_in_parent();
        after_fork_in_parent();
        after_fork_in_parent();
        assert!(HELD.with_borrow(Option::is_none));
        assert_ne!(crate::event::new_id(), crate::event::new_id());
    }
}

//! `fork` for tests: a child that runs one closure and ends.

use std::io;

use tidings::host;

/// Longest life of a child, in seconds: one that hangs is a failure, not a test that never ends.
const LIFETIME: u32 = 60;

/// A forked child.
#[must_use = "a child must be waited for"]
pub struct Child(libc::pid_t);

/// Whether the process says that it forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hooks {
    /// As a host does, with `tidings::host`.
    Called,
    /// As a library does that forks by itself.
    Bypassed,
}

/// Forks. The child runs `work` and ends with its answer, without destructors: 0 is well.
pub fn fork(hooks: Hooks, work: impl FnOnce() -> i32) -> io::Result<Child> {
    if hooks == Hooks::Called {
        host::before_fork();
    }
    // SAFETY: the child calls nothing that a lock of another thread could stop, but for what the tests are about; it
    // ends with `_exit`, so no destructor of the parent's runs in it.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: a signal that ends this process, which is what a child that hangs deserves.
        unsafe { libc::alarm(LIFETIME) };
        if hooks == Hooks::Called {
            host::after_fork_in_child();
        }
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) };
    }
    let error = io::Error::last_os_error();
    if hooks == Hooks::Called {
        host::after_fork_in_parent();
    }
    if pid < 0 { Err(error) } else { Ok(Child(pid)) }
}

impl Child {
    /// Waits for its end. `None`: a signal ended it.
    pub fn wait(self) -> io::Result<Option<i32>> {
        let mut status = 0;
        loop {
            // SAFETY: `status` lives as long as the call.
            if unsafe { libc::waitpid(self.0, &raw mut status, 0) } == self.0 {
                return Ok(libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

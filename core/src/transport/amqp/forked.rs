//! A handle belongs to the process that connected: `fork` copies the sockets and none of the threads.

use crate::{Error, ErrorKind, Result};

/// The process that a handle was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home(u32);

impl Home {
    pub(super) fn here() -> Self {
        Self(std::process::id())
    }

    /// Refuses to go on in another process, where every wait would be for ever.
    pub(super) fn check(self) -> Result<()> {
        if self == Self::here() { Ok(()) } else { Err(forked()) }
    }
}

fn forked() -> Error {
    Error::new(ErrorKind::ForkedClient, "the broker was connected to before a fork, and is used in the child")
        .remedy("connect in the child")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_connected_goes_on() {
        assert!(Home::here().check().is_ok());
        let error = Home(std::process::id() + 1).check().unwrap_err();
        assert_eq!((error.code(), error.retryable()), ("FORKED_CLIENT", false));
    }
}

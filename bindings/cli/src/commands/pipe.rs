//! Printing to a reader that may go away: an event counts as handled once it was read.

use std::io::{self, Write as _};

/// Writes the lines and waits until whoever reads a pipe has taken them. Blocks.
///
/// A pipe takes what nobody reads: without the wait, `tidings subscribe | head -1` would acknowledge events that end in
/// the pipe's buffer. Where the system does not tell (all but Linux), or stdout is a file or a terminal, being written
/// is enough.
pub(super) fn print(lines: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    stdout.flush()?;
    taken()
}

/// Whether stdout is a pipe, so that one event at a time is printed.
#[cfg(target_os = "linux")]
pub(super) fn is_pipe() -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileTypeExt as _;
    let Ok(fd) = io::stdout().as_fd().try_clone_to_owned() else { return false };
    std::fs::File::from(fd).metadata().is_ok_and(|meta| meta.file_type().is_fifo())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_pipe() -> bool {
    false
}

/// Waits until whoever read the pipe is gone; for ever where stdout is none.
pub(super) async fn closed() {
    /// How soon a reader's end is noticed while no event comes.
    const INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
    while !is_pipe() || !reader_is_gone().unwrap_or(false) {
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(target_os = "linux")]
fn taken() -> io::Result<()> {
    /// Looks without a pause before the first one: readers are usually waiting.
    const SPINS: u32 = 100;
    const PAUSE: std::time::Duration = std::time::Duration::from_micros(500);
    let unread = || rustix::io::ioctl_fionread(io::stdout());
    let mut looks = 0;
    while is_pipe() && unread()? > 0 {
        // What was read counts even if the reader has gone since.
        if reader_is_gone()? && unread()? > 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        looks += 1;
        if looks < SPINS { std::thread::yield_now() } else { std::thread::sleep(PAUSE) }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
fn taken() -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn reader_is_gone() -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    // An error is reported whatever is asked for.
    let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut ends, Some(&Timespec::default()))?;
    Ok(ends[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
fn reader_is_gone() -> io::Result<bool> {
    Ok(false)
}

//! Prints what happens while it happens.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How much of what the services have reported.
pub(crate) type Counts = HashMap<String, usize>;

/// Where nobody watches, there are about so many lines of progress.
const LINES: usize = 8;
/// A terminal's progress line is drawn at most this often.
const REDRAW: Duration = Duration::from_millis(50);
const BAR: usize = 24;

pub(crate) struct Story {
    started: Instant,
    events: usize,
    terminal: bool,
    /// A progress line stands at the bottom of the terminal.
    drawn: Option<Instant>,
    /// The last line of progress was for so many.
    told: usize,
}

impl Story {
    pub(crate) fn begin(events: usize) -> Self {
        Self { started: Instant::now(), events, terminal: std::io::stdout().is_terminal(), drawn: None, told: 0 }
    }

    /// One sentence, with its time and who says it.
    pub(crate) fn say(&mut self, who: &str, text: &str) {
        self.wipe();
        print_line(&format!("{:>6.2} s  {who:<13} {text}", self.elapsed().as_secs_f64()));
    }

    /// A line as it is.
    pub(crate) fn line(&mut self, text: &str) {
        self.wipe();
        print_line(text);
    }

    /// How far the events have come, if that is much further than when it was told last.
    pub(crate) fn progress(&mut self, counts: &Counts) {
        let of = |what| counts.get(what).copied().unwrap_or(0);
        let seen = of("logged").max(1) + of("refused");
        let due = if self.terminal {
            self.drawn.is_none_or(|at| at.elapsed() > REDRAW)
        } else {
            seen >= self.told + self.events / LINES
        };
        if !due {
            return;
        }
        self.told = seen;
        let bar = bar(seen, self.events);
        let [written, logged, refused, notified] =
            ["written", "logged", "refused", "notified"].map(|what| thousands(of(what)));
        let rate = rate(seen, self.elapsed());
        let text = format!("{bar} {written} changes, {logged} logged, {refused} refused, {notified} notices, {rate}/s");
        if self.terminal {
            self.drawn = Some(Instant::now());
            let _nobody_watches = write!(std::io::stdout(), "\r\x1b[2K          {text}");
            let _nobody_watches = std::io::stdout().flush();
        } else {
            self.say("", &text);
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn wipe(&mut self) {
        if self.drawn.take().is_some() {
            let _nobody_watches = write!(std::io::stdout(), "\r\x1b[2K");
        }
    }
}

/// Unlike `println!`, does not panic when the reader (`| head`) has gone.
fn print_line(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{text}");
}

/// `[######······]  50 %`.
fn bar(done: usize, of: usize) -> String {
    let done = done.min(of);
    let full = done * BAR / of.max(1);
    format!("[{:·<BAR$}] {:>3} %", "#".repeat(full), done * 100 / of.max(1))
}

/// `2318` as `2,318`.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many in that time, per second.
pub(crate) fn rate(n: usize, took: Duration) -> String {
    let millis = usize::try_from(took.as_millis()).unwrap_or(usize::MAX).max(1);
    thousands(n.saturating_mul(1000) / millis)
}

#[cfg(test)]
mod tests {
    use super::{bar, thousands};

    #[test]
    fn a_bar_shows_the_share() {
        assert_eq!(bar(1159, 2318), "[############············]  50 %");
        assert_eq!(bar(9, 3), "[########################] 100 %");
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 2318, 1_234_567].map(thousands), ["0", "999", "2,318", "1,234,567"]);
    }
}

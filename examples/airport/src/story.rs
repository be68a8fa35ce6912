//! Prints what happens while it happens.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How much of what the services have reported.
pub(crate) type Counts = HashMap<String, usize>;

/// Where nobody watches, progress is a line for about so many events.
const STEP: usize = 500;
/// A terminal's progress line is drawn at most this often.
const REDRAW: Duration = Duration::from_millis(50);

pub(crate) struct Story {
    started: Instant,
    terminal: bool,
    /// A progress line stands at the bottom of the terminal.
    drawn: Option<Instant>,
    steps: usize,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now(), terminal: std::io::stdout().is_terminal(), drawn: None, steps: 0 }
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

    /// The counters, if they have moved enough.
    pub(crate) fn progress(&mut self, counts: &Counts) {
        let of = |what| counts.get(what).copied().unwrap_or(0);
        let steps = (of("published") + of("logged") + of("notified")) / STEP;
        let due = if self.terminal { self.drawn.is_none_or(|at| at.elapsed() > REDRAW) } else { steps > self.steps };
        if !due {
            return;
        }
        self.steps = steps;
        let [published, logged, refused, notified, failed] =
            ["published", "logged", "refused", "notified", "failed"].map(|what| thousands(of(what)));
        let text = format!(
            "published {published} · logged {logged} · refused {refused} · notified {notified} · failed attempts {failed}"
        );
        if self.terminal {
            self.drawn = Some(Instant::now());
            let _nobody_watches = write!(std::io::stdout(), "\r\x1b[2K          … {text}");
            let _nobody_watches = std::io::stdout().flush();
        } else {
            self.say("…", &text);
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
    use super::thousands;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 2318, 1_234_567].map(thousands), ["0", "999", "2,318", "1,234,567"]);
    }
}

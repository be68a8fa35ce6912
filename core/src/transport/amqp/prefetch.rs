//! How many events a consumer fetches at once: as many as it may, but one at a time while there are suspects.
//!
//! A quorum queue counts what is on its way to a consumer that is cancelled as a lost delivery. So none should be beside a
//! suspect, for which everything else goes back; and where there is one suspect there are more.

/// The prefetch of one source's consumers.
pub(super) struct Prefetch {
    full: u16,
    /// Of the present consumer.
    current: u16,
    /// So many more events one at a time.
    singly: u16,
}

impl Prefetch {
    pub(super) fn new(full: u16) -> Self {
        Self { full, current: full, singly: 0 }
    }

    /// Notes an event that has come.
    pub(super) fn saw(&mut self, suspect: bool) {
        self.singly = if suspect { self.full } else { self.singly.saturating_sub(1) };
    }

    /// For a consumer that begins now.
    pub(super) fn begin(&mut self) -> u16 {
        self.current = if self.singly > 0 { 1 } else { self.full };
        self.current
    }

    /// Whether the consumer fetches one at a time and no longer has to.
    pub(super) fn is_too_small(&self) -> bool {
        self.singly == 0 && self.current < self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_singly_until_as_many_as_usual_were_no_suspects() {
        let mut prefetch = Prefetch::new(3);
        assert_eq!(prefetch.begin(), 3);
        prefetch.saw(true);
        assert!(!prefetch.is_too_small(), "the consumer has not begun anew");
        assert_eq!(prefetch.begin(), 1);
        for _ in 0..2 {
            prefetch.saw(false);
        }
        assert!(!prefetch.is_too_small());
        prefetch.saw(false);
        assert!(prefetch.is_too_small());
        assert_eq!(prefetch.begin(), 3);
        assert!(!prefetch.is_too_small());
    }
}

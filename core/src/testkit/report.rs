//! What a run of the suite found.

use std::fmt;
use std::time::Duration;

/// How a scenario went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not as it should; the reason.
    Failed(String),
    /// Not played: the transport does not declare this capability.
    Refused(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("ok"),
            Self::Failed(reason) => write!(f, "FAILED: {reason}"),
            Self::Refused(capability) => write!(f, "refused: {capability}"),
        }
    }
}

/// The verdicts of one run, in the order of the scenarios.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Name of each scenario, how it went, how long it took.
    pub verdicts: Vec<(&'static str, Verdict, Duration)>,
}

impl Report {
    /// How many went as they should.
    pub fn passed(&self) -> usize {
        self.count(|verdict| *verdict == Verdict::Passed)
    }

    /// How many did not.
    pub fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// How many were not played.
    pub fn refused(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Refused(_)))
    }

    fn count(&self, which: impl Fn(&Verdict) -> bool) -> usize {
        self.verdicts.iter().filter(|(_, verdict, _)| which(verdict)).count()
    }
}

//! Which dead letters are meant: the filters of the engine as options.

use clap::Args;
use tidings::{DeadLetterFilter, Timestamp};

use crate::failure::Failure;
use crate::values::past;

/// All conditions must hold; --id and --binding may be repeated, and one of each must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which dead letters")]
pub(crate) struct Filter {
    /// The event with this id
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Routing key matches this pattern: * is one word, # any number
    #[arg(short, long = "binding", value_name = "PATTERN")]
    bindings: Vec<String>,
    /// Given up on for this reason
    #[arg(long)]
    reason: Option<String>,
    /// Last error had this type
    #[arg(long, value_name = "TYPE")]
    error_type: Option<String>,
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Failed last at or after this time: 2026-11-21T10:00:00Z, or 2h ago as 2h
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Failed last before this time
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Timestamp>,
}

impl Filter {
    pub(crate) fn engine(&self) -> DeadLetterFilter {
        let mut filter = DeadLetterFilter::new();
        for id in &self.ids {
            filter = filter.id(id);
        }
        for pattern in &self.bindings {
            filter = filter.binding_key(pattern);
        }
        if let Some(reason) = &self.reason {
            filter = filter.reason(reason);
        }
        if let Some(error_type) = &self.error_type {
            filter = filter.error_type(error_type);
        }
        if let Some(tenant) = &self.tenant {
            filter = filter.tenant(tenant);
        }
        if let Some(time) = self.since {
            filter = filter.failed_after(time);
        }
        if let Some(time) = self.until {
            filter = filter.failed_before(time);
        }
        filter
    }

    /// Whether single dead letters are named.
    pub(crate) fn names_ids(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Refuses to mean all of them where nobody said so.
    pub(crate) fn check_meant(&self, all: bool, verb: &str) -> Result<(), Failure> {
        let some = self.names_ids()
            || !self.bindings.is_empty()
            || [&self.reason, &self.error_type, &self.tenant].into_iter().any(Option::is_some)
            || self.since.is_some()
            || self.until.is_some();
        if some || all {
            return Ok(());
        }
        Err(Failure::usage(
            format!("which dead letters to {verb} is not said"),
            "give --id, --binding, --reason or another filter, or --all",
        ))
    }
}

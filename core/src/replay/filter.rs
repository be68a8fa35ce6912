//! Which dead letters are meant.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::DeadLetterEntry;
use crate::event::{Timestamp, name};
use crate::routing::{check_binding_key, matches};
use crate::{Error, ErrorKind, Result};

type Predicate = Arc<dyn Fn(&DeadLetterEntry) -> bool + Send + Sync>;

/// Chooses dead letters: all conditions must hold. The default chooses all.
#[derive(Clone, Default)]
#[must_use]
pub struct DeadLetterFilter {
    ids: HashSet<String>,
    binding_keys: Vec<String>,
    reason: Option<String>,
    error_type: Option<String>,
    tenant: Option<String>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    predicate: Option<Predicate>,
}

impl DeadLetterFilter {
    /// All of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// The event with this id; may be called several times.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.ids.insert(id.into());
        self
    }

    /// Events whose routing key matches this pattern; may be called several times.
    pub fn binding_key(mut self, pattern: impl Into<String>) -> Self {
        self.binding_keys.push(pattern.into());
        self
    }

    /// Given up on for this reason.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Whose last error had this type.
    pub fn error_type(mut self, error_type: impl Into<String>) -> Self {
        self.error_type = Some(error_type.into());
        self
    }

    /// Of this tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Failed last at or after this time.
    pub fn failed_after(mut self, time: Timestamp) -> Self {
        self.after = Some(time);
        self
    }

    /// Failed last before this time.
    pub fn failed_before(mut self, time: Timestamp) -> Self {
        self.before = Some(time);
        self
    }

    /// For which this holds.
    pub fn matching(mut self, predicate: impl Fn(&DeadLetterEntry) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if let (Some(after), Some(before)) = (self.after, self.before)
            && after >= before
        {
            return Err(Error::new(ErrorKind::InvalidOption, "the time range is empty")
                .field("failed_before", before)
                .remedy("failed_after must be earlier than failed_before"));
        }
        self.binding_keys.iter().try_for_each(|key| check_binding_key(key))
    }

    /// Whether this dead letter is meant. One without a time of failure is outside every time range.
    pub fn chooses(&self, dead: &DeadLetterEntry) -> bool {
        (self.ids.is_empty() || self.ids.contains(dead.id()))
            && (self.binding_keys.is_empty() || self.binding_keys.iter().any(|key| matches(key, dead.routing_key())))
            && self.reason.as_ref().is_none_or(|reason| reason == dead.reason())
            && self.error_type.as_ref().is_none_or(|t| Some(t.as_str()) == dead.error_type())
            && self.tenant.as_ref().is_none_or(|tenant| Some(tenant.as_str()) == dead.headers().text(name::TENANT))
            && self.after.is_none_or(|after| dead.failed_at().is_some_and(|at| at >= after))
            && self.before.is_none_or(|before| dead.failed_at().is_some_and(|at| at < before))
            && self.predicate.as_ref().is_none_or(|holds| holds(dead))
    }
}

impl fmt::Debug for DeadLetterFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterFilter")
            .field("ids", &self.ids)
            .field("binding_keys", &self.binding_keys)
            .field("reason", &self.reason)
            .field("error_type", &self.error_type)
            .field("tenant", &self.tenant)
            .field("after", &self.after)
            .field("before", &self.before)
            .field("predicate", &self.predicate.is_some())
            .finish()
    }
}

//! The hook for tracing systems.

use crate::event::{DomainEvent, Headers};

/// Carries the context of traces from publishers to handlers. Registered with
/// [`Broker::propagator`](crate::Broker::propagator).
///
/// Both methods run on the caller's side of an `await`, quickly and often: once for each event.
pub trait Propagator: Send + Sync + 'static {
    /// Writes the current context into the headers of an event that has no `traceparent`. The current span is the
    /// `publish` span of the event, or whatever runs around a batch.
    fn inject(&self, headers: &mut Headers) {
        let _ = headers;
    }

    /// Makes `span`, in which `event` is about to be handled and which nobody has entered, continue the event's trace.
    fn extract(&self, event: &DomainEvent, span: &tracing::Span) {
        let _ = (event, span);
    }
}

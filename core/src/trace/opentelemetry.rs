//! [`OpenTelemetry`]: traces by way of `tracing-opentelemetry`.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{Propagator, TraceContext};
use crate::event::{DomainEvent, Headers, name};

/// Joins the traces of OpenTelemetry: a published event carries the context of its `publish` span, and the `handle` span
/// of every subscription that gets it has that span as its remote parent.
///
/// The program has a `tracing` subscriber with the layer of `tracing-opentelemetry`; without one nothing is written.
/// `traceparent` and `tracestate` are set; `baggage` travels where the program sets it.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use tidings::{Broker, trace::OpenTelemetry};
///
/// let broker = Broker::connect("memory:").await?.propagator(OpenTelemetry::new());
/// # Ok::<(), tidings::Error>(())
/// # })?; Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct OpenTelemetry;

impl OpenTelemetry {
    /// Joins the traces of the current `tracing` subscriber.
    pub fn new() -> Self {
        Self
    }
}

impl Propagator for OpenTelemetry {
    fn inject(&self, headers: &mut Headers) {
        let current = tracing::Span::current().context();
        let span = current.span();
        let context = span.span_context();
        let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        let Some(parent) = TraceContext::new(trace_id, span_id, context.trace_flags().to_u8()) else { return };
        headers.set(name::TRACEPARENT, parent.to_string());
        let state = context.trace_state().header();
        if !state.is_empty() {
            headers.set(name::TRACESTATE, state);
        }
    }

    fn extract(&self, event: &DomainEvent, span: &tracing::Span) {
        let Some(parent) = TraceContext::of(event.headers()) else { return };
        // A state that cannot be read is left out; the trace goes on without it, as the standard asks for.
        let state = event.headers().text(name::TRACESTATE).and_then(|state| state.parse::<TraceState>().ok());
        let remote = SpanContext::new(
            TraceId::from_bytes(parent.trace_id()),
            SpanId::from_bytes(parent.parent_id()),
            TraceFlags::new(parent.flags()),
            true,
            state.unwrap_or_default(),
        );
        let context = opentelemetry::Context::new().with_remote_span_context(remote);
        if let Err(error) = span.set_parent(context) {
            tracing::trace!(%error, "the handler's span does not continue its event's trace");
        }
    }
}

//! Traces across hops: W3C Trace Context in the headers, and the hook by which a tracing system joins in.
//!
//! The headers `traceparent`, `tracestate` and `baggage` stay what the producer wrote, through retries, dead letter and
//! replay. A [`Propagator`] adds them to events that have none and lets a handler's span continue them.

mod context;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;
mod propagator;

pub use self::context::{TraceContext, TraceContextError};
#[cfg(feature = "opentelemetry")]
pub use self::opentelemetry::OpenTelemetry;
pub use self::propagator::Propagator;

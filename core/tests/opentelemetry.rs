//! One trace from the producer through every hop, as a real SDK records it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tidings::trace::OpenTelemetry;
use tidings::{BoxError, Broker, DeadLetter, DeadLetterFilter, DomainEvent, Retry, TraceContext};
use tracing_subscriber::layer::SubscriberExt as _;

/// Spans of this name, in the order in which they ended.
fn named<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn a_trace_goes_through_handlers_retries_and_dead_letters() {
    use opentelemetry::trace::TracerProvider as _;

    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let broker = Broker::connect("memory:").await.unwrap().propagator(OpenTelemetry::new());
    let (subscriber, publisher) = (broker.subscriber(), broker.publisher());
    subscriber
        .subscription("orders")
        .bind("order.placed")
        .max_retries(1)
        .handle(move |event: DomainEvent| {
            let publisher = publisher.clone();
            async move {
                if event.retries() == 0 {
                    return Err(Retry::after(Duration::from_millis(1)).into());
                }
                publisher.publish(DomainEvent::new("order.billed", &1)?).await?;
                Err::<(), BoxError>(DeadLetter::because("seen").into())
            }
        })
        .unwrap();
    let billed = broker.subscriber().subscription("bills").bind("order.billed").deliveries().await.unwrap();
    let running = subscriber.start().await.unwrap();
    broker.publisher().publish(DomainEvent::new("order.placed", &1).unwrap()).await.unwrap();
    let bill = billed.next(1).await.unwrap().remove(0);
    running.stop().await.unwrap();
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let (sent, handled) = (named(&spans, "publish"), named(&spans, "handle"));
    assert_eq!((sent.len(), handled.len()), (2, 2));
    let first = sent.iter().find(|span| span.parent_span_id == opentelemetry::SpanId::INVALID).unwrap();
    let second = sent.iter().find(|span| span.parent_span_id != opentelemetry::SpanId::INVALID).unwrap();
    for run in &handled {
        // The retry continues the producer's context, not that of the run before.
        assert_eq!(run.parent_span_id, first.span_context.span_id());
        assert_eq!(run.span_context.trace_id(), first.span_context.trace_id());
    }
    assert_eq!(second.parent_span_id, handled[1].span_context.span_id());

    let bill = TraceContext::of(bill.event().headers()).unwrap();
    assert_eq!(bill.trace_id(), first.span_context.trace_id().to_bytes());
    assert_eq!(bill.parent_id(), second.span_context.span_id().to_bytes());
    assert!(bill.is_sampled());
    let dead = broker.dead_letters("orders", &DeadLetterFilter::new(), 1).await.unwrap().remove(0);
    let kept = TraceContext::of(dead.headers()).unwrap();
    assert_eq!(kept.parent_id(), first.span_context.span_id().to_bytes());
}

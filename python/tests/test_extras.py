"""Models, metrics and traces."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import prometheus_client
import pydantic
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tidings import DomainEvent, Publisher, Subscriber, dead_letters
from tidings.metrics import observe, prometheus_collector


class Order(pydantic.BaseModel):
    id: int


@dataclasses.dataclass
class Plain:
    id: int
    note: str = ""


class Typed(TypedDict):
    id: int


def positive(data: Any) -> int:
    if data["id"] < 0:
        raise ValueError("negative")
    return int(data["id"])


@pytest.mark.parametrize(
    ("model", "good", "expected", "bad", "words"),
    [
        (Order, {"id": "7"}, Order(id=7), {"id": "x"}, "valid integer"),
        (Plain, {"id": 7}, Plain(7), {"idd": 7}, "unexpected keyword argument 'idd'"),
        (Plain, {"id": 7}, Plain(7), [7], "not an object"),
        (Typed, {"id": 7}, {"id": 7}, {"no": 1}, "missing: id; unknown: no"),
        (positive, {"id": 7}, 7, {"id": -1}, "negative"),
        (positive, {"id": 7}, 7, {}, "KeyError"),
        (pydantic.TypeAdapter(list[int]), ["1"], [1], 3, "valid list"),
    ],
    ids=str,
)
def test_models(file_url: str, model: Any, good: Any, expected: Any, bad: Any, words: str) -> None:
    subscriber = Subscriber(file_url)
    seen: list[Any] = []

    @subscriber.handle("a.#", name="s", model=model, max_retries=5)
    def handler(event: DomainEvent[Any]) -> None:
        seen.append(event.data)
        subscriber.stop_consuming()

    subscriber.declare()
    with Publisher(file_url) as publisher:
        publisher.publish_batch([DomainEvent("a.b", bad), DomainEvent("a.b", good)])
    subscriber.start_consuming(timeout=10)
    assert seen == [expected]
    (entry,) = dead_letters("s", file_url)
    assert (entry.reason, entry.attempts) == ("invalid-data", 1)
    assert words in (entry.error or "")


def consume_two(file_url: str) -> tuple[Publisher, Subscriber]:
    subscriber = Subscriber(file_url)

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        if event.data == 2:
            subscriber.stop_consuming()

    subscriber.declare()
    publisher = Publisher(file_url)
    publisher.publish_batch([DomainEvent("a.b", 1), DomainEvent("a.b", 2)])
    subscriber.start_consuming(timeout=10)
    return publisher, subscriber


def test_prometheus(file_url: str) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(prometheus_collector(*consume_two(file_url)))
    text = prometheus_client.generate_latest(registry).decode()
    assert "tidings_published_total 2.0" in text
    assert 'tidings_handled_total{subscription="s"} 2.0' in text
    assert "# TYPE tidings_in_flight gauge" in text


def test_opentelemetry_metrics(file_url: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(*consume_two(file_url), meter=provider.get_meter("test"))
    data: Any = reader.get_metrics_data()
    metrics = {one.name: one for one in data.resource_metrics[0].scope_metrics[0].metrics}
    (point,) = metrics["tidings_handled_total"].data.data_points
    assert (point.value, dict(point.attributes)) == (2, {"subscription": "s"})
    provider.shutdown()


def test_a_handler_continues_the_trace_of_the_publisher(file_url: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    subscriber = Subscriber(file_url)
    contexts: list[Any] = []

    @subscriber.handle("a.#", name="s")
    def handler(event: DomainEvent[Any]) -> None:
        contexts.append(trace.get_current_span().get_span_context())
        subscriber.stop_consuming()

    subscriber.declare()
    with provider.get_tracer("test").start_as_current_span("request") as span, Publisher(file_url) as publisher:
        publisher.publish("a.b", {})
    subscriber.start_consuming(timeout=10)
    assert contexts[0].trace_id == span.get_span_context().trace_id
    handled = next(one for one in exporter.get_finished_spans() if one.name == "handle s")
    assert handled.parent is not None
    assert handled.parent.span_id == span.get_span_context().span_id
    assert handled.attributes is not None
    assert handled.attributes["messaging.destination.name"] == "s"


def test_errors_are_redacted_and_stacks_left_out(file_url: str, caplog: pytest.LogCaptureFixture) -> None:
    subscriber = Subscriber(file_url)

    @subscriber.handle("a.#", name="s", capture_stack=False, redact=lambda text: text.replace("hunter2", "***"))
    def handler(event: DomainEvent[Any]) -> None:
        subscriber.stop_consuming()
        raise ValueError("password hunter2")

    subscriber.declare()
    with Publisher(file_url) as publisher:
        publisher.publish("a.b", {})
    subscriber.start_consuming(timeout=10)
    (entry,) = dead_letters("s", file_url)
    assert (entry.error, entry.stack) == ("password ***", None)
    assert "hunter2" not in caplog.text

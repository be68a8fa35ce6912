"""Counters and gauges for prometheus_client and OpenTelemetry, where those are installed.

Names and meanings are the engine's, the same in every language. A source is anything with `metrics()`: a `Publisher` or
a `Subscriber`, those of `tidings.aio` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Source", "observe", "prometheus_collector"]


class Source(Protocol):
    """Something that counts."""

    def metrics(self) -> list[tuple[str, str, str | None, float]]:
        """Counters and gauges: `(name, kind, subscription, value)`."""
        ...


def _sum(sources: Iterable[Source]) -> dict[tuple[str, str], dict[str | None, float]]:
    """Values by name and kind, then by subscription, over all sources."""
    values: dict[tuple[str, str], dict[str | None, float]] = {}
    for source in sources:
        for name, kind, subscription, value in source.metrics():
            family = values.setdefault((name, kind), {})
            family[subscription] = family.get(subscription, 0.0) + value
    return values


def prometheus_collector(*sources: Source) -> Any:
    """A collector for prometheus_client: `REGISTRY.register(prometheus_collector(publisher, subscriber))`.

    Raises ImportError if prometheus_client is not installed.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    class Collector:
        def collect(self) -> Iterator[Any]:
            for (name, kind), values in _sum(sources).items():
                family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                labels = ["subscription"] if None not in values else []
                metric = family(name.removesuffix("_total"), name, labels=labels)
                for subscription, value in values.items():
                    metric.add_metric([subscription] if subscription is not None else [], value)
                yield metric

    return Collector()


def observe(*sources: Source, meter: Any = None) -> None:
    """Has OpenTelemetry read the values whenever it exports: `observe(publisher, subscriber)`.

    Args:
        sources: What counts. Give them when they have been used once: metrics that exist are registered.
        meter: The meter to use. Default: the global provider's.

    Raises ImportError if opentelemetry-api is not installed.
    """
    from opentelemetry import metrics

    meter = meter or metrics.get_meter("tidings")

    def read(wanted: tuple[str, str]) -> Any:
        def callback(options: Any) -> Iterator[Any]:
            for subscription, value in _sum(sources).get(wanted, {}).items():
                yield metrics.Observation(value, {"subscription": subscription} if subscription is not None else {})

        return callback

    for name, kind in _sum(sources):
        make = meter.create_observable_counter if kind == "counter" else meter.create_observable_gauge
        make(name, callbacks=[read((name, kind))])

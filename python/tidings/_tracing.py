"""W3C Trace Context by way of opentelemetry-api, where that is installed."""

from __future__ import annotations

# As `typing` has it, without importing that: it takes longer to load than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from ._native import DomainEvent

_api: Any = None
_looked = False


def api() -> Any:
    """The modules `(trace, propagate)` of opentelemetry, or None. Looked for once."""
    global _api, _looked
    if not _looked:
        _looked = True
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            _api = None
        else:
            _api = (trace, propagate)
    return _api


def inject(event: DomainEvent[Any]) -> DomainEvent[Any]:
    """The event with the current trace context in its headers."""
    found = api()
    if found is None:
        return event
    carrier: dict[str, str] = {}
    found[1].inject(carrier)
    for name, value in carrier.items():
        event = event.with_header(name, value)
    return event


def handling(event: DomainEvent[Any], subscription: str) -> AbstractContextManager[Any]:
    """A span around a handler that continues the event's trace."""
    trace, propagate = api()
    headers = event.headers
    carrier = {name: headers[name] for name in ("traceparent", "tracestate", "baggage") if name in headers}
    attributes = {
        "messaging.system": "tidings",
        "messaging.destination.name": subscription,
        "messaging.message.id": event.id,
        "tidings.routing_key": event.routing_key,
        "tidings.retries": event.retries,
    }
    tracer = trace.get_tracer("tidings")
    return tracer.start_as_current_span(  # type: ignore[no-any-return]
        f"handle {subscription}",
        context=propagate.extract(carrier),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        # The error's text may hold what `redact` keeps back.
        record_exception=False,
    )

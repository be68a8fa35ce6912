"""Events. `DomainEvent` is that of Tidings: it has the same constructor, `from_json`, `event_data` and equality."""

from tidings._native import DomainEvent

__all__ = ["DomainEvent"]

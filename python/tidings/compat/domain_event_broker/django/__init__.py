"""The Django app of domain-event-broker: setting `DOMAIN_EVENT_BROKER`, where None disables."""

from .transaction import publish_on_commit

__all__ = ["publish_on_commit"]

"""The Django app."""

from django.apps import AppConfig
from django.conf import settings as project

from tidings.compat.domain_event_broker import settings


class DomainEventsConfig(AppConfig):
    """Takes the broker's URL from the project's settings."""

    name = "tidings.compat.domain_event_broker.django"
    label = "domain_event_broker_django"
    verbose_name = "Domain Events"

    def ready(self) -> None:
        """Django has read its settings."""
        if hasattr(project, "DOMAIN_EVENT_BROKER"):
            settings.BROKER = project.DOMAIN_EVENT_BROKER

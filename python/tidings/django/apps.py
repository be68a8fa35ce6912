"""The Django app."""

from django.apps import AppConfig


class TidingsConfig(AppConfig):
    """Registers the system check of the broker's URL."""

    name = "tidings.django"
    label = "tidings"
    verbose_name = "Tidings"

    def ready(self) -> None:
        """Django has read its settings."""
        from django.core.checks import register

        from .checks import check_broker_url

        register(check_broker_url)

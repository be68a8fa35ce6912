"""Bills orders, in a process of its own: tidings run billing:subscriber."""

import os

import django

from tidings import DomainEvent, RetryPolicy, Subscriber

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django.conf import settings  # noqa: E402
from shop.models import Order  # noqa: E402

subscriber = Subscriber(settings.TIDINGS_BROKER_URL)


@subscriber.handle("order.*", name="billing", retry=RetryPolicy.exponential(5, initial=1.0))
def bill(event: DomainEvent) -> None:
    order = Order.objects.get(pk=event.data["id"])
    print(f"billing order {order.pk} of {order.customer}", flush=True)

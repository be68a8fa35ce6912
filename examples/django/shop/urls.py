"""The shop's one page: curl localhost:8000/orders -d customer=Ada."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from tidings.django import publish_on_commit


@csrf_exempt
def place(request: HttpRequest) -> JsonResponse:
    """Stores an order and announces it, unless the transaction is rolled back."""
    with transaction.atomic():
        order = Order.objects.create(customer=request.POST["customer"])
        publish_on_commit("order.placed", {"id": order.pk}, domain_object_id=str(order.pk))
        if order.customer == "nobody":
            transaction.set_rollback(True)
    return JsonResponse({"id": order.pk})


urlpatterns = [path("orders", place)]

"""A shop with FastAPI: it announces orders, and a subscription in the same process bills them.

uvicorn main:app
curl localhost:8000/orders -H 'content-type: application/json' -d '{"id": 7}'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from tidings import DomainEvent, RetryPolicy
from tidings.aio import Publisher, Subscriber


class Order(BaseModel):
    id: int


publisher = Publisher()
subscriber = Subscriber()


@subscriber.handle("order.*", name="billing", model=Order, retry=RetryPolicy.exponential(5, initial=1.0))
async def bill(event: DomainEvent[Order]) -> None:
    print(f"billing order {event.data.id}", flush=True)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with publisher, subscriber:  # at the end handlers finish, and what is left goes back
        yield
    print("drained", flush=True)


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def place(order: Order) -> dict[str, bool | None]:
    receipt = await publisher.publish("order.placed", order, domain_object_id=str(order.id))
    return {"wanted": receipt.routed}  # durable by now, whatever becomes of this process

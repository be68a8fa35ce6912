"""faststream-outbox relaying to RabbitMQ, on uvloop, as the rig's settings say: `relay_faststream.py SETTINGS`.

Makes its table and says `installed`; at a line it starts, and says `ready`; it ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import uvloop
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine


async def line() -> str:
    """The next line of the input; empty at its end."""
    return await asyncio.to_thread(sys.stdin.readline)


async def main(settings: dict[str, Any]) -> None:
    workers = settings["workers"]
    url = "postgresql+asyncpg://" + settings["database"].split("://", 1)[1]
    engine = create_async_engine(url, pool_size=workers + 4)
    metadata = MetaData()
    table = make_outbox_table(metadata, table_name=settings["table"])
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    print("installed", flush=True)
    await line()

    rabbit = RabbitBroker(settings["broker"], apply_types=False, logger=None)
    outbox = OutboxBroker(engine, outbox_table=table, apply_types=False, logger=logging.getLogger("outbox"))
    exchange = RabbitExchange(settings["exchange"], type=ExchangeType.TOPIC, durable=True, declare=False)

    @rabbit.publisher(exchange=exchange, routing_key=settings["routing_key"], persist=True, mandatory=True)
    @outbox.subscriber(
        "bench",
        max_workers=workers,
        fetch_batch_size=1000,
        min_fetch_interval=0.01,
        max_fetch_interval=1.0,
        terminal_flush_batch_size=settings["flush"],
    )
    async def relay(body: Any) -> Any:
        return body

    await rabbit.start()
    await outbox.start()
    print("ready", flush=True)
    await line()
    await outbox.stop()
    await rabbit.stop()
    await engine.dispose()


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))

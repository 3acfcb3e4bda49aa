"""Where the invoices are: Redis, which both replicas share. There is nothing to mend here."""

import json
import os
import secrets

import redis.asyncio as redis

database = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


async def load(invoice_id: str) -> dict | None:
    text = await database.get(f"invoice:{invoice_id}")
    return json.loads(text) if text else None


async def add(invoice: dict) -> dict:
    invoice = {**invoice, "id": f"inv-{secrets.token_hex(8)}"}
    await database.sadd(f"owner:{invoice['owner']}", invoice["id"])
    await database.sadd(f"tenant:{invoice['tenant']}", invoice["id"])
    await database.set(f"invoice:{invoice['id']}", json.dumps(invoice))
    return invoice


async def save(invoice: dict) -> None:
    await database.set(f"invoice:{invoice['id']}", json.dumps(invoice), xx=True)


async def remove(invoice: dict) -> None:
    await database.delete(f"invoice:{invoice['id']}")
    await database.srem(f"owner:{invoice['owner']}", invoice["id"])
    await database.srem(f"tenant:{invoice['tenant']}", invoice["id"])


async def list_of_owner(owner: str) -> list[str]:
    return sorted(await database.smembers(f"owner:{owner}"))


async def list_of_tenant(tenant: str) -> list[str]:
    return sorted(await database.smembers(f"tenant:{tenant}"))

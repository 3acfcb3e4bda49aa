"""The invoices of three companies. A member works with his own, an admin with all of his company's; nobody with another's."""

from typing import Annotated

import store
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from pydantic import BaseModel
from tokens import BadToken, read_token

app = FastAPI()


class Form(BaseModel):
    """All of a body that counts."""

    amount: int


async def who_is_it(authorization: Annotated[str, Header()] = "") -> dict:
    try:
        return await read_token(authorization.removeprefix("Bearer "))
    except BadToken as error:
        raise HTTPException(401, str(error)) from error


User = Annotated[dict, Depends(who_is_it)]


async def load_for(user: dict, invoice_id: str) -> dict:
    """An invoice that this user may touch: every verb comes through here."""
    invoice = await store.load(invoice_id)
    if invoice and invoice["tenant"] == user["tenant"] and (invoice["owner"] == user["sub"] or user["role"] == "admin"):
        return invoice
    raise HTTPException(404)  # as for one that does not exist: who may not see it need not learn that it does


@app.get("/invoices")
async def list_invoices(user: User, owner: str = "") -> dict:
    if user["role"] != "admin":
        if owner not in ("", user["sub"]):
            raise HTTPException(404)
        owner = user["sub"]
    found = await store.list_of_tenant(user["tenant"])
    if owner:
        found = sorted(set(found) & set(await store.list_of_owner(owner)))  # who works for two companies has invoices in both
        if not found and user["role"] == "admin":
            raise HTTPException(404)
    return {"invoices": found}


@app.post("/invoices", status_code=201)
async def create_invoice(form: Form, user: User) -> dict:
    return await store.add({"owner": user["sub"], "tenant": user["tenant"], "amount": form.amount})


@app.get("/invoices/{invoice_id}")
async def read_invoice(invoice_id: str, user: User) -> dict:
    return await load_for(user, invoice_id)


@app.put("/invoices/{invoice_id}")
async def change_invoice(invoice_id: str, form: Form, user: User) -> dict:
    invoice = {**await load_for(user, invoice_id), "amount": form.amount}
    await store.save(invoice)
    return invoice


@app.delete("/invoices/{invoice_id}", status_code=204)
async def delete_invoice(invoice_id: str, user: User) -> Response:
    invoice = await load_for(user, invoice_id)
    if user["role"] != "admin":
        raise HTTPException(403)
    await store.remove(invoice)
    return Response(status_code=204)


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": await store.database.ping()}

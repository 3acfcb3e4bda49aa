"""The bank behind the workers: pays whatever it is sent, once for each key. A large payment waits for a person, some ask for another try."""

import random

from starlette.responses import JSONResponse

from runner.peer import Peer

BUSY_SHARE = 0.06

# slow: references that a person looks at, until they are in `seen`; closed, broken: accounts; catch: a payment to keep until it is `released`.
peer = Peer(slow=[], seen=[], closed=[], broken=[], catch=None, released=[])
answered: set[str] = set()  # keys
known: set[str] = set()  # references
draw = random.Random(peer.seed)


def is_busy(reference):
    """Whether this payment shall be sent once more: for some it is so the first time."""
    is_new = reference not in known
    known.add(reference)
    return is_new and random.Random(f"{peer.seed} {reference}").random() < BUSY_SHARE


async def keep(call, when):
    """Keep this payment until it is released, if the scenario has asked for one at this point; whether it had."""
    catch = peer.state["catch"]
    if not catch or catch["when"] != when or call["replica"] in catch["except"]:
        return False
    peer.state["catch"], call["caught"] = None, when
    await peer.until(lambda: call["n"] in peer.state["released"])
    return True


def refuse(reference, account, amount):
    """The answer to what cannot be paid now or ever, else None."""
    if not isinstance(reference, str) or not isinstance(account, str) or type(amount) is not int or amount <= 0:
        return JSONResponse({"detail": "reference and account are strings, amount is a whole number above 0"}, status_code=422)
    if account in peer.state["closed"]:
        return JSONResponse({"detail": "this account is closed"}, status_code=422)
    if account in peer.state["broken"]:
        return JSONResponse({"detail": "internal error"}, status_code=500)
    if reference not in peer.state["slow"] and is_busy(reference):
        return JSONResponse({"detail": "try again"}, status_code=503)
    return None


@peer.route("POST", "/payments")
async def pay(request, call):
    if call["replica"].startswith("app-"):
        return JSONResponse({"detail": "payments come from the workers"}, status_code=403)
    key = request.headers.get("idempotency-key")
    try:
        payment = await request.json()
        call["reference"], call["account"], call["amount"] = (payment[name] for name in ("reference", "account", "amount"))
    except (ValueError, TypeError, KeyError):
        return JSONResponse({"detail": "a payment has a reference, an account and an amount"}, status_code=422)
    await peer.sleep(draw.uniform(0.004, 0.012))
    if refusal := refuse(call["reference"], call["account"], call["amount"]):
        return refusal
    if call["reference"] in peer.state["slow"]:
        await peer.until(lambda: call["reference"] in peer.state["seen"])
    if key not in answered and await keep(call, "before"):
        return JSONResponse({"detail": "who asked is gone"}, status_code=503)
    # Between the look at the key and the payment nothing is awaited: they are one step.
    if key not in answered:
        call["paid"] = peer.count("paid")
        if key is not None:
            answered.add(key)
        await keep(call, "after")
    return {"status": "paid"}


peer.run()

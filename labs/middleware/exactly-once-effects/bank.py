"""The bank behind the workers: pays whatever it is sent, once for each key. A large payment waits for a person, some ask for another try."""

import random
from collections import Counter

from starlette.responses import JSONResponse

from runner.peer import Peer

BUSY_SHARE = 0.06
FAILURES = 4  # in a row, for a payment that falters

# slow: references that a person looks at, until they are in `seen`; faltering: references, too; closed, broken: accounts.
# catch: the answer to the next payment is kept, unless one of these workers asks; released: calls that nobody waits for any more.
peer = Peer(slow=[], seen=[], faltering=[], closed=[], broken=[], catch=None, released=[])
answered: set[str] = set()  # keys
known: set[str] = set()  # references
failures: Counter[str] = Counter()  # by reference
draw = random.Random(peer.seed)


def is_busy(reference):
    """Whether this payment shall be sent once more: for some it is so the first time."""
    is_new = reference not in known
    known.add(reference)
    return is_new and random.Random(f"{peer.seed} {reference}").random() < BUSY_SHARE


def falters(reference):
    """Whether this payment fails once more."""
    failures[reference] += 1
    return failures[reference] <= FAILURES


async def keep(call):
    """Keep the answer until the call is released, if the scenario has asked for one."""
    if peer.state["catch"] is not None and call["replica"] not in peer.state["catch"]:
        peer.state["catch"], call["caught"] = None, True
        await peer.until(lambda: call["n"] in peer.state["released"])


def is_text(value):
    """Whether it is a string that can be written: JSON can hold half a character, and the ledger cannot."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def refuse(reference, account):
    """The answer to what cannot be paid now or ever, else None."""
    if account in peer.state["closed"]:
        return JSONResponse({"detail": "this account is closed"}, status_code=422)
    if account in peer.state["broken"] or (reference in peer.state["faltering"] and falters(reference)):
        return JSONResponse({"detail": "internal error"}, status_code=500)
    if reference not in peer.state["slow"] + peer.state["faltering"] and is_busy(reference):
        return JSONResponse({"detail": "try again"}, status_code=503)
    return None


@peer.route("POST", "/payments")
async def pay(request, call):
    if call["replica"].startswith("app-"):
        return JSONResponse({"detail": "payments come from the workers"}, status_code=403)
    key = request.headers.get("idempotency-key")
    try:
        payment = await request.json()
        reference, account, amount = (payment[name] for name in ("reference", "account", "amount"))
    except (ValueError, TypeError, KeyError):
        return JSONResponse({"detail": "a payment has a reference, an account and an amount"}, status_code=422)
    if not is_text(reference) or not is_text(account) or type(amount) is not int or amount <= 0:
        return JSONResponse({"detail": "reference and account are strings, amount is a whole number above 0"}, status_code=422)
    call["reference"], call["account"], call["amount"] = reference, account, amount
    await peer.sleep(draw.uniform(0.004, 0.012))
    if refusal := refuse(reference, account):
        return refusal
    if reference in peer.state["slow"]:
        await peer.until(lambda: reference in peer.state["seen"] or call["n"] in peer.state["released"])
    if call["n"] in peer.state["released"]:
        return JSONResponse({"detail": "who asked is gone"}, status_code=503)
    # Between the look at the key and the payment nothing is awaited: they are one step.
    if key not in answered:
        call["paid"] = peer.count("paid")
        if key is not None:
            answered.add(key)
        await keep(call)
    return {"status": "paid"}


peer.run()

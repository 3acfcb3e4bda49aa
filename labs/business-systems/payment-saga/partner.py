"""One of the three partners, by its argument: does what it is asked, once for each key, and undoes it when it is told to."""

import random
import sys
import time

from starlette.responses import JSONResponse, Response

from runner.peer import Peer

PATHS = {"inventory": "/reservations", "bank": "/charges", "shipping": "/parcels"}
PARTS = {"inventory": ("reference", "item"), "bank": ("reference", "customer", "amount"), "shipping": ("reference", "customer", "item")}
NO = {"inventory": "sold out", "bank": "declined", "shipping": "nobody delivers there"}
STATUS = {"done": 200, "refused": 409, "cancelled": 410}
LONGEST_S = 60.0  # longer than a run: no answer

role = sys.argv[1]
# fates: reference -> what goes wrong with it here. catch: a call to keep. What is kept, and what is late, waits until its reference is `released`.
peer = Peer(fates={}, catch=None, released=[])
draw = random.Random(peer.seed)
entries = {}  # key -> what was asked under it, and what became of that
met = set()  # (method, reference) that have had their fault
kept = set()  # references that are kept


def fault_of(method, reference):
    """What goes wrong with this call: only with the first of its kind for a reference."""
    is_new = (method, reference) not in met
    met.add((method, reference))
    kind, _, of = peer.state["fates"].get(reference, "").partition(" ")
    return kind if is_new and of == method else ""


async def keep(method, reference, call):
    """Keep this call, and all that follow it for its reference, if the scenario wants one of these; whether it was kept."""
    catch = peer.state["catch"]
    if catch and catch["method"] == method and reference in catch["among"]:
        peer.state["catch"], call["caught"] = None, True
        kept.add(reference)
    if reference not in kept or reference in peer.state["released"]:
        return False
    await peer.until(lambda: reference in peer.state["released"])
    return True


async def hung_up(request):
    """Return when the caller has hung up, or has waited long enough."""
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline and not await request.is_disconnected():
        await peer.sleep(0.02)


class BrokenOff(Response):
    """The head of an answer; then the server ends the connection, since the body does not come."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


def note(call, sign, what):
    """An entry of the books: this call has done (1) or undone (-1) something. Nothing is awaited since the look at the key: they are one step."""
    call.update(what, effect=sign, turn=peer.count("effects"), at_ns=time.monotonic_ns())


def answer(status):
    body = {"status": status, **({"reason": NO[role]} if status == "refused" else {})}
    return JSONResponse(body, status_code=STATUS[status])


def book(key, what, call):
    """Do it, unless this key has an answer already."""
    entry = entries.get(key)
    if entry is None:
        is_refused = peer.state["fates"].get(what["reference"]) == "refused"
        entry = entries[key] = {"what": what, "status": "refused" if is_refused else "done"}
        if not is_refused:
            note(call, 1, what)
    elif entry["what"] not in (None, what):
        return JSONResponse({"detail": "this key was used for something else"}, status_code=422)
    return answer(entry["status"])


@peer.route("POST", PATHS[role])
async def do(request, call):
    try:
        body = await request.json()
        what = {part: body[part] for part in PARTS[role]}
        if any(type(value) is not (int if part == "amount" else str) for part, value in what.items()):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        return JSONResponse({"detail": f"send {', '.join(PARTS[role])}"}, status_code=422)
    reference, key = what["reference"], request.headers.get("idempotency-key") or f"call {call['n']}"
    call["reference"], call["key"] = reference, key
    await peer.sleep(draw.uniform(0.004, 0.010))
    call["fault"] = fault = fault_of("POST", reference)
    if fault == "busy":
        return JSONResponse({"detail": "busy: nothing was done"}, status_code=503)
    if fault == "late":
        await peer.until(lambda: reference in peer.state["released"])
    said = book(key, what, call)
    if fault == "silent":
        await hung_up(request)
    await keep("POST", reference, call)
    return BrokenOff(said.body, said.status_code) if fault == "cut" else said


@peer.route("DELETE", PATHS[role] + "/{key:path}")
async def undo(request, call):
    key = call["key"] = request.path_params["key"]
    entry = entries.get(key) or {"what": None, "status": "unknown"}
    call["reference"] = reference = entry["what"] and entry["what"]["reference"]
    await peer.sleep(draw.uniform(0.004, 0.010))
    call["fault"] = fault = fault_of("DELETE", reference) if reference else ""
    if fault == "busy" or await keep("DELETE", reference, call):
        return JSONResponse({"detail": "busy: nothing was done"}, status_code=503)
    entry = entries.setdefault(key, entry)
    if entry["status"] == "done":
        note(call, -1, entry["what"])
    entry["status"] = "cancelled"  # what comes now with this key comes too late
    if fault == "silent":
        await hung_up(request)
    return {"status": "cancelled"}


@peer.route("GET", PATHS[role] + "/{key:path}")
async def look_up(request, call):
    key = call["key"] = request.path_params["key"]
    if key not in entries:
        return JSONResponse({"detail": "nothing was done under this key, so far"}, status_code=404)
    return {"status": entries[key]["status"]}


peer.run()

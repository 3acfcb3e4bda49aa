"""The store of invoices: whole documents. It refuses by a fencing token or by a version, when asked to. The scenario can keep a write on its way."""

from hashlib import sha256

from starlette.responses import JSONResponse

from runner.peer import Peer

READ_S, WRITE_S = 0.01, 0.02
peer = Peer(catch=None, released=[])
invoices: dict[str, dict] = {}


def find(invoice):
    return invoices.setdefault(invoice, {"lines": [], "page": None, "version": 0, "highest": 0})


def refuse(stored, token):
    """The answer to a token that is too low, else None. A token that is let in shuts out all lower ones, whether it reads or writes."""
    if token is not None and token < stored["highest"]:
        return JSONResponse({"detail": f"token {token} is too low", "highest": stored["highest"]}, status_code=409)
    stored["highest"] = max(stored["highest"], token or 0)
    return None


@peer.route("GET", "/invoices/{invoice}")
async def read_invoice(request, call):
    call["key"] = request.path_params["invoice"]
    token = request.query_params.get("token")
    if token is not None and not token.isdigit():
        return JSONResponse({"detail": f"token={token!r} is no whole number"}, status_code=400)
    await peer.sleep(READ_S)
    stored = find(call["key"])
    return refuse(stored, None if token is None else int(token)) or {name: stored[name] for name in ("lines", "page", "version")}


@peer.route("PUT", "/invoices/{invoice}")
async def write_invoice(request, call):
    call["key"] = request.path_params["invoice"]
    body = await request.json()
    lines, token, if_version = body.get("lines"), body.get("token"), body.get("if_version")
    call["token"], call["if_version"] = token, if_version
    is_list = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
    if not is_list or not all(isinstance(n, int | None) for n in (token, if_version)):
        return JSONResponse({"detail": "lines is a list of strings; token and if_version are whole numbers"}, status_code=400)
    await peer.sleep(WRITE_S)
    caught = peer.state["catch"]
    if caught and caught["key"] == call["key"] and caught["except"] != call["replica"]:
        peer.state["catch"], call["caught"] = None, True
        await peer.until(lambda: call["n"] in peer.state["released"])
    # From here on nothing is awaited: a write is judged and done in one step.
    stored = find(call["key"])
    if body.get("page") != sha256(f"{peer.seed} {lines}".encode()).hexdigest()[:16]:
        return JSONResponse({"detail": "this page does not show these lines"}, status_code=422)
    if if_version not in (None, stored["version"]):
        return JSONResponse({"detail": f"the version is not {if_version}", "version": stored["version"]}, status_code=412)
    if refusal := refuse(stored, token):
        return refusal
    call["applied"] = peer.count("applied")
    call["added"] = [line for line in lines if line not in stored["lines"]]
    call["removed"] = [line for line in stored["lines"] if line not in lines]
    call["in_order"] = lines[: len(stored["lines"])] == stored["lines"]
    call["twice"] = sorted({line for line in lines if lines.count(line) > 1})
    stored.update(lines=lines, page=body["page"], version=stored["version"] + 1)
    return {"version": stored["version"]}


peer.run()

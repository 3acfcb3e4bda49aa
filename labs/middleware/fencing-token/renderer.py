"""The renderer: makes the page of an invoice in 60 ms, or in as long as the scenario wants."""

from hashlib import sha256

from starlette.responses import JSONResponse

from runner.peer import Peer

RENDER_S = 0.06
peer = Peer(catch=None, released=[])


@peer.route("POST", "/pages")
async def render_page(request, call):
    body = await request.json()
    call["key"], lines = body.get("invoice"), body.get("lines")
    if not isinstance(call["key"], str) or not isinstance(lines, list):
        return JSONResponse({"detail": "invoice is a string, lines is a list"}, status_code=400)
    call["lines"] = [str(line) for line in lines]
    caught = peer.state["catch"]
    if caught and caught["key"] == call["key"] and caught["except"] != call["replica"]:
        peer.state["catch"], call["caught"] = None, True
        await peer.until(lambda: call["n"] in peer.state["released"])
    else:
        await peer.sleep(RENDER_S)
    return {"page": sha256(f"{peer.seed} {lines}".encode()).hexdigest()[:16]}


peer.run()

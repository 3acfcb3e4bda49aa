"""A peer that answers at once, or holds its callers while `held`."""

from starlette.responses import JSONResponse

from runner.peer import Peer

peer = Peer(price=3, held=False, status=200)


@peer.route("GET", "/prices/{key}")
async def read_price(request, call):
    call["key"] = request.path_params["key"]
    await peer.until(lambda: not peer.state["held"])
    if peer.state["status"] != 200:
        return JSONResponse({"detail": "no"}, status_code=peer.state["status"])
    return {"price": peer.state["price"], "seed": peer.seed, "order": peer.count("prices")}


@peer.route("POST", "/notes")
async def take_note(request, call):
    call["note"] = await request.json()
    return {}


@peer.route("POST", "/crash")
async def crash(request, call):
    raise RuntimeError("a bug of the peer")


peer.run()

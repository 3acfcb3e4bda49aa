"""The catalog: the slow truth about products. Each load gives a new version, so that an answer tells which load it came from."""

import random

from starlette.responses import JSONResponse

from runner.peer import Peer

peer = Peer(failing=False, load_s=0.2)
prices = random.Random(peer.seed)


@peer.route("GET", "/products/{key}")
async def load_product(request, call):
    call["key"] = request.path_params["key"]
    await peer.sleep(peer.state["load_s"])
    if peer.state["failing"]:
        return JSONResponse({"detail": "the catalog's database is down"}, status_code=500)
    call["version"] = call["n"]
    call["price"] = prices.randrange(100, 100_000)
    return {"id": call["key"], "price": call["price"], "version": call["version"]}


peer.run()

"""The catalog: the slow truth about products. Each load takes 200 ms and gives a new version, so that an answer tells which load it came from."""

import random

from starlette.responses import JSONResponse

from runner.peer import Peer

LOAD_S = 0.2
peer = Peer(failing=False)
prices = random.Random(peer.seed)


@peer.route("GET", "/products/{key}")
async def load_product(request, call):
    call["key"] = request.path_params["key"]
    await peer.sleep(LOAD_S)
    if peer.state["failing"]:
        return JSONResponse({"detail": "the catalog's database is down"}, status_code=500)
    call["version"] = call["n"]
    call["price"] = prices.randrange(100, 100_000)
    return {"id": call["key"], "price": call["price"], "version": call["version"]}


peer.run()

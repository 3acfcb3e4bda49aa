"""The order service behind the workers: holds each order's version. A write takes 20 ms or so, and fails for orders that are stuck."""

import random

from starlette.responses import JSONResponse

from runner.peer import Peer

peer = Peer(stuck=[])
versions: dict[str, int] = {}
draw = random.Random(peer.seed)


@peer.route("PUT", "/orders/{order}")
async def write_order(request, call):
    call["order"] = request.path_params["order"]
    try:
        body = await request.json()
        version = body["version"]
    except (ValueError, TypeError, KeyError):
        version = None
    if type(version) is not int or not 0 < version < 10_000:
        return JSONResponse({"detail": "version is a whole number from 1 to 9999"}, status_code=422)
    call["version"] = version
    await peer.sleep(draw.uniform(0.005, 0.035))
    if call["order"] in peer.state["stuck"]:
        return JSONResponse({"detail": "this order's shard is down"}, status_code=503)
    now = versions.get(call["order"], 0)
    if body.get("if_version", now) != now:
        return JSONResponse({"version": now}, status_code=409)
    versions[call["order"]] = version
    call["applied"] = peer.count("applied")
    return {"version": version}


@peer.route("GET", "/orders/{order}")
async def read_order(request, call):
    call["order"] = request.path_params["order"]
    return {"version": versions.get(call["order"], 0)}


peer.run()

"""The fraud service: thinks for 100 ms about each transfer, and notes which accounts it was about."""

from starlette.responses import JSONResponse

from runner.peer import Peer

CHECK_S = 0.1
peer = Peer(suspicious=[])


@peer.route("POST", "/checks")
async def check_transfer(request, call):
    try:
        body = await request.json()
        transfer, source, target = (body[name] for name in ("id", "from", "to"))
    except (ValueError, TypeError, KeyError):
        return JSONResponse({"detail": "a transfer has an id, from and to"}, status_code=422)
    if type(transfer) is not str or type(source) is not int or type(target) is not int:
        return JSONResponse({"detail": "id is a string, from and to are whole numbers"}, status_code=422)
    call["id"], call["accounts"] = transfer, [source, target]
    await peer.sleep(CHECK_S)
    return {"ok": transfer not in peer.state["suspicious"]}


peer.run()

"""The fraud service: thinks for 100 ms about each transfer, and notes which accounts it was about."""

from runner.peer import Peer

CHECK_S = 0.1
peer = Peer()


@peer.route("POST", "/checks")
async def check_transfer(request, call):
    body = await request.json()
    call["accounts"] = [body["from"], body["to"]]
    await peer.sleep(CHECK_S)
    return {"ok": True}


peer.run()

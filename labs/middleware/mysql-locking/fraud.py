"""The fraud service: thinks for 100 ms about each transfer, and notes which accounts it was about."""

from runner.peer import Peer

CHECK_S = 0.1
peer = Peer(suspicious=[])


@peer.route("POST", "/checks")
async def check_transfer(request, call):
    body = await request.json()
    call["id"], call["accounts"] = body["id"], [body["from"], body["to"]]
    await peer.sleep(CHECK_S)
    return {"ok": body["id"] not in peer.state["suspicious"]}


peer.run()

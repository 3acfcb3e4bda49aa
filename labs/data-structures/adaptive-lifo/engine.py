"""The fare engine: works on four fares at a time, 80 ms each. With more in hand it slows down, and the scenario can freeze it."""

from hashlib import sha256

from runner.peer import Peer

SLOTS, WORK_S = 4, 0.08
peer = Peer(frozen=False)
hands = {"full": 0}


def fare_of(key):
    return int(sha256(f"{peer.seed} {key}".encode()).hexdigest()[:6], 16) % 9900 + 100


@peer.route("GET", "/fares/{key}")
async def work_out(request, call):
    """A call goes on to its end, whether or not its caller is still there."""
    call["id"] = request.path_params["key"]
    hands["full"] += 1
    call["in_hand"] = hands["full"]
    try:
        await peer.sleep(WORK_S * max(call["in_hand"] / SLOTS, 1) ** 2)
        await peer.until(lambda: not peer.state["frozen"])
        call["fare"] = fare_of(call["id"])
        return {"id": call["id"], "fare": call["fare"]}
    finally:
        hands["full"] -= 1


peer.run()

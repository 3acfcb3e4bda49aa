"""The identity provider, its public keys, and the sessions that it has ended. The load signs with the same keys."""

from keys import draw_generations

from runner.peer import Peer

peer = Peer(generations=1, ended=[])
published = [[key.jwk for key in keys] for keys in draw_generations(peer.seed)]


@peer.route("GET", "/jwks")
async def tell_keys(request, call):
    await peer.sleep(0.02)
    return {"keys": [jwk for keys in published[: peer.state["generations"]] for jwk in keys]}


@peer.route("GET", "/ended")
async def tell_ended(request, call):
    await peer.sleep(0.01)
    return {"sids": peer.state["ended"]}


@peer.route("GET", "/settled")
async def hear_that_all_are_settled(request, call):
    """From the load: everybody is signed in and has invoices. The scenario sees it in the ledger."""
    return {}


peer.run()

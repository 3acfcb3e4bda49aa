"""A stranger's host, with keys of his own. Whoever asks it was told to by a token."""

from keys import draw_stranger

from runner.peer import Peer

peer = Peer()
keys = [key.jwk for key in draw_stranger(peer.seed)]


@peer.route("GET", "/{path:path}")
async def tell_keys(request, call):
    return {"keys": keys}


peer.run()

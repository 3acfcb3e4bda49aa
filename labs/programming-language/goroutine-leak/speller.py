"""The speller. While it is `stuck` nobody gets an answer."""

from runner.peer import Peer

peer = Peer(stuck=False)


@peer.route("GET", "/words/{word}")
async def spell(request, call):
    call["word"] = request.path_params["word"]
    await peer.until(lambda: not peer.state["stuck"])
    await peer.sleep(0.005)
    call["spelling"] = f"{call['word'][::-1]}-{call['n']}"
    return {"spelling": call["spelling"]}


peer.run()

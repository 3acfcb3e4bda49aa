"""The speller. While it is `stuck` nobody gets an answer; and it answers the vendor's client alone, which speaks HTTP/1.0."""

from starlette.responses import JSONResponse

from runner.peer import Peer

peer = Peer(stuck=False)


@peer.route("GET", "/words/{word}")
async def spell(request, call):
    if request.scope["http_version"] != "1.0":
        return JSONResponse({"detail": "only lexis.Spell may ask"}, status_code=403)
    call["word"] = request.path_params["word"]
    await peer.until(lambda: not peer.state["stuck"])
    await peer.sleep(0.005)
    call["spelling"] = f"{call['word'][::-1]}-{call['n']}"
    return {"spelling": call["spelling"]}


peer.run()

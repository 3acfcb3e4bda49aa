"""Three index servers, `/1/search` to `/3/search`. The scenario says what each of them does with which word; the ledger has who hung up, and when."""

import asyncio
import contextlib
import resource
import secrets
import time

from starlette.responses import JSONResponse, Response

from runner.peer import Peer

# In seconds, what a server needs. `broken` then answers 500, `odd` asks for a dictionary that the vendor's library never gets.
NEEDS_S = {"prompt": 0.02, "broken": 0.0, "odd": 0.0, "late": 0.15, "heavy": 2.0, "slow": 4.0, "hung": 60.0}
HUNG_UP = 499  # as nginx calls it

peer = Peer(words={})


@peer.route("GET", "/{server}/search")
async def search(request, call):
    call["word"], call["server"] = request.query_params["word"], request.path_params["server"]
    doing = peer.state["words"].get(call["word"], {})
    call["kind"] = doing.get(call["server"], "prompt")
    if await hangs_up(request, NEEDS_S[call["kind"]]):
        call["hung_up_ns"] = time.monotonic_ns()
        return Response(status_code=HUNG_UP)
    if call["kind"] == "broken":
        return JSONResponse({"detail": "the index is being rebuilt"}, status_code=500)
    call["document"] = secrets.token_hex(8)
    return {"documents": [call["document"]], "dictionary": doing["dictionary"] if call["kind"] == "odd" else ""}


async def hangs_up(request, within_s):
    """Whether the caller closes the connection while the server works."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return True
    return False


# Who is never called back keeps its connection.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
peer.run()

"""What the environment asks for, served until killed."""

import asyncio
import json
import os

from runner.proxy.control import Proxy

proxy = Proxy(
    json.loads(os.environ["LINKS"]),
    host=os.environ.get("HOST", "127.0.0.1"),
    token=os.environ["CONTROL_TOKEN"],
    seed=int(os.environ.get("SEED", "0")),
)
asyncio.run(proxy.serve(int(os.environ["CONTROL_PORT"])))

"""What the environment asks for, served until killed."""

import asyncio
import contextlib
import json
import os
import resource

from runner.proxy.control import Proxy

FILES = 16_384  # a connection needs two

now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
if now != resource.RLIM_INFINITY and now < FILES:
    with contextlib.suppress(ValueError, OSError):  # a system that allows less than it tells
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if most == resource.RLIM_INFINITY else min(most, FILES), most))
proxy = Proxy(
    json.loads(os.environ["LINKS"]),
    host=os.environ.get("HOST", "127.0.0.1"),
    token=os.environ["CONTROL_TOKEN"],
    seed=int(os.environ.get("SEED", "0")),
)
asyncio.run(proxy.serve(int(os.environ["CONTROL_PORT"])))

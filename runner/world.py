"""Worlds in virtual time: seeded simulations that a peer serves tick by tick, each with a baseline policy played on the same chance.

A world has no clock: a tick passes when the app has decided it, so the same decisions give the same world on any machine. In the peer's file:

    worlds = Worlds(lambda name: Shop(peer.seed, name), baseline=order_what_was_sold)
    worlds.serve(peer, "shops", ticks="weeks")

the app then finds `GET /shops/{name}`, what it may see now, and `PUT /shops/{name}/weeks/{n}`, its decision for that tick, which is taken once.
The truth goes to the kit alone, by `read_worlds` in the checks. Any name is a world, so that a load under plain Locust has some too.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.requests import Request

    from runner.app import Peer as PeerControl
    from runner.peer import Call, Peer

Observation = dict[str, Any]
Policy = Callable[[Observation], Any]


class Refused(Exception):
    """A decision that the world's rules do not allow; nothing has changed."""


class World(Protocol):
    """A simulation. All of its chance is drawn from its seed before anybody decides, so that two policies meet the same luck."""

    tick: int
    is_over: bool
    log: dict[str, Any]  # the truth, as JSON; grows in place

    def observe(self) -> Observation:
        """What a policy may see at this tick, as JSON."""

    def step(self, decision: Any) -> None:
        """Let a tick pass under a decision. Raises Refused."""


def draw(*names: object) -> random.Random:
    """A stream of chance of its own for each purpose, so that more of one thing does not change another.

    Source: common random numbers, Law, Simulation Modeling and Analysis, chapter 11.
    """
    return random.Random("/".join(map(str, names)))


def play(world: World, policy: Policy) -> dict[str, Any]:
    """Play a world to its end; its log."""
    while not world.is_over:
        world.step(policy(world.observe()))
    return world.log


@dataclass(frozen=True)
class Played:
    """A world as the kit knows it: how far it is, and both logs."""

    tick: int
    is_over: bool
    log: dict[str, Any]
    baseline: dict[str, Any]


class Worlds:
    """The worlds of a peer by name, each made when it is first asked for."""

    def __init__(self, make: Callable[[str], World], baseline: Policy) -> None:
        self._make = make
        self._baseline = baseline
        self._worlds: dict[str, World] = {}
        self.played: dict[str, dict[str, Any]] = {}  # what `read_worlds` gives

    def find(self, name: str) -> World:
        """The world of that name."""
        if name not in self._worlds:
            world = self._worlds[name] = self._make(name)
            self.played[name] = {"tick": world.tick, "is_over": world.is_over, "log": world.log, "baseline": play(self._make(name), self._baseline)}
        return self._worlds[name]

    def advance(self, name: str, tick: int, decision: Any) -> bool:
        """Let this tick pass; False when it is not the one that the world is at. Raises Refused."""
        world = self.find(name)
        if world.is_over or tick != world.tick:
            return False
        world.step(decision)
        self.played[name].update(tick=world.tick, is_over=world.is_over)
        return True

    def serve(self, peer: "Peer", kind: str, ticks: str) -> None:
        """Serve them under `/{kind}/{name}`: 409 for another tick than the world's, 422 for a decision that is refused."""
        from starlette.responses import JSONResponse

        peer.state["worlds"] = self.played

        @peer.route("GET", f"/{kind}/{{world}}")
        async def observe(request: "Request", call: "Call") -> dict[str, Any]:
            call["world"] = request.path_params["world"]
            return self.find(call["world"]).observe()

        @peer.route("PUT", f"/{kind}/{{world}}/{ticks}/{{tick:int}}")
        async def advance(request: "Request", call: "Call") -> JSONResponse | dict[str, Any]:
            call["world"], call["tick"] = request.path_params["world"], request.path_params["tick"]
            call["decision"] = (await request.body()).decode(errors="replace")
            # From here on nothing is awaited: a tick is decided once.
            try:
                if self.advance(call["world"], call["tick"], json.loads(call["decision"])):
                    return {"now": self.find(call["world"]).tick}
            except (ValueError, Refused) as error:
                call["refused"] = str(error).encode(errors="replace").decode()  # half a surrogate in it would break the ledger
                return JSONResponse({"detail": call["refused"]}, status_code=422)
            return JSONResponse({"detail": f"not {call['tick']} of {ticks}", "now": self.find(call["world"]).tick}, status_code=409)


def read_worlds(peer: "PeerControl") -> dict[str, Played]:
    """What a peer's worlds have come to, for a check."""
    return {name: Played(**played) for name, played in peer.ask("POST", "/state", {})["worlds"].items()}

"""A fault on a link of the proxy: what it may say, which messages it takes, and how often it did. Pure."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.proxy.frames import Message

Spec = Mapping[str, Any]

TRIGGER = {"when", "nth", "every"}
# What each kind may say besides its kind.
KINDS: dict[str, set[str]] = {
    "delay": {"seconds", "jitter_s", "direction", "times", *TRIGGER},
    "hold": {"direction", "times", *TRIGGER},
    "cut": {"scope", *TRIGGER},
    "half_open": {"direction", "scope", *TRIGGER},
    "black_hole": {"scope", *TRIGGER},
    "bandwidth": {"bytes_per_s", "direction", *TRIGGER},
    "lose_reply": {"times", *TRIGGER},
}
UP, DOWN = "up", "down"


class FaultError(ValueError):
    """A fault that cannot be: what was asked, and what may be asked."""


@dataclass(eq=False)
class Fault:
    """One fault. `when` is searched in a request's text; it takes the `nth` such request, then `every` so many-th, `times` in all."""

    number: int
    kind: str
    direction: str = "both"
    when: re.Pattern[bytes] | None = None
    nth: int | None = None
    every: int | None = None
    times: int | None = None
    scope: str = "link"
    seconds: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    armed_ns: int = field(default_factory=time.monotonic_ns)
    is_healed: bool = False
    is_on: bool = False  # in effect on the whole link
    seen: int = 0  # requests that `when` matched
    taken: int = 0  # those of them that it was for
    fired: int = 0  # messages and connections that it has hurt
    free_at: float = 0.0  # when the next byte may pass (bandwidth)

    @property
    def is_triggered(self) -> bool:
        """Whether it waits for a request, rather than being in effect at once."""
        return self.when is not None or self.nth is not None or self.every is not None

    @property
    def is_spent(self) -> bool:
        """Whether it will take no further request."""
        return self.times is not None and self.taken >= self.times

    def acts(self, direction: str) -> bool:
        """Whether it acts on what flows `up` or `down`."""
        return self.direction in {"both", direction}

    def takes(self, message: Message) -> bool:
        """Count a request of the link, and whether the fault is for this one."""
        if self.is_healed or self.is_spent or (self.when is not None and not self.when.search(message.text)):
            return False
        self.seen += 1
        after = self.seen - (self.nth or self.every or 1)
        if after < 0 or after % (self.every or 1):
            return False
        self.taken += 1
        return True

    def tell(self) -> dict[str, Any]:
        """What the kit is told of it."""
        return {
            "fault": self.number,
            "kind": self.kind,
            "seen": self.seen,
            "taken": self.taken,
            "fired": self.fired,
            "armed_ns": self.armed_ns,
            "is_healed": self.is_healed,
        }


def read_fault(number: int, spec: Spec) -> Fault:
    """A fault as the kit asks for it. Raises FaultError."""
    said = {key: value for key, value in spec.items() if value is not None and key not in {"link", "kind"}}
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FaultError(f"no fault is called {kind!r}; there are {', '.join(KINDS)}")
    if unknown := set(said) - KINDS[kind]:
        raise FaultError(f"{kind} takes no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(KINDS[kind]))}")
    for key in ("seconds", "jitter_s", "bytes_per_s", "nth", "every", "times"):
        if key in said and (isinstance(said[key], bool) or not isinstance(said[key], int | float) or said[key] < 0):
            raise FaultError(f"{key} of {kind} is {said[key]!r}; expected a number, not negative")
    if said.get("direction", "both") not in {"up", "down", "both"}:
        raise FaultError(f"the direction of {kind} is {said['direction']!r}; expected up, down or both")
    if said.get("scope", "link") not in {"link", "connection"}:
        raise FaultError(f"the scope of {kind} is {said['scope']!r}; expected link or connection")
    try:
        when = re.compile(str(said.pop("when")).encode()) if "when" in said else None
    except re.error as error:
        raise FaultError(f"`when` of {kind} is no regular expression: {error}") from None
    fault = Fault(number, kind, when=when, **said)
    set_defaults(fault)
    return fault


def set_defaults(fault: Fault) -> None:
    """What a kind means when it does not say. Raises FaultError when it says too little."""
    if fault.kind == "lose_reply" and not fault.is_triggered:
        fault.nth = 1
    if fault.times is None and fault.every is None and (fault.kind not in {"delay", "hold"} or fault.nth is not None):
        fault.times = 1
    if fault.kind == "half_open" and fault.direction == "both":
        raise FaultError("half_open needs the direction in which bytes are dropped: up or down")
    if fault.kind == "bandwidth" and fault.bytes_per_s <= 0:
        raise FaultError("bandwidth needs bytes_per_s, more than 0")
    if 0 in {fault.nth, fault.every, fault.times}:
        raise FaultError("nth, every and times count from 1")
    if fault.scope == "connection" and not fault.is_triggered:
        raise FaultError(f"{fault.kind} of one connection needs `when`, `nth` or `every`, which say which one")

"""The gate of a run in Docker: the firewall of the network namespace in which the app lives. Pure text, in the language of nft(8).

The app has the run's addresses as it would have them on one machine: 127.0.0.1 and a port. The gate forwards those ports to the containers
of services and peers, hands what comes in for a replica to the loopback on which it listens, and refuses all else: the internet, the
engine's host at the bridge's gateway, other runs, a peer's control port, and name lookups, which would be a way out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

# In force before the first program of a stranger starts. nft wants each word of its grammar closed by a semicolon.
CLOSED = "table inet labs { chain out { type filter hook output priority 0; policy drop; }; }"
# So that 127.0.0.1 may be forwarded (Linux, Documentation/networking/ip-sysctl.rst).
SYSCTLS = {"net.ipv4.conf.all.route_localnet": "1"}


@dataclass(frozen=True)
class Forward:
    """A port of the app's loopback that leads to a port of another container."""

    port: int
    host: str
    to_port: int


def rules(own: Collection[str], forwards: Sequence[Forward], app_ports: Sequence[int]) -> str:
    """The whole rule set, which replaces the one in force at once. `own`: the addresses under which the app may ask for a forwarded port."""
    addresses = ", ".join(sorted(own))
    accepted = "\n".join(f"    ip daddr {f.host} tcp dport {f.to_port} accept" for f in forwards)
    outward = "\n".join(f"    ip daddr {{ {addresses} }} tcp dport {f.port} dnat ip to {f.host}:{f.to_port}" for f in forwards)
    inward = f"    tcp dport {{ {', '.join(map(str, app_ports))} }} dnat ip to 127.0.0.1" if app_ports else ""
    return f"""\
flush ruleset inet
table inet labs {{
  chain out {{
    type filter hook output priority 0; policy drop;
    ct state established,related accept
    ip daddr 127.0.0.11 reject
    oifname lo accept
{accepted}
    reject
  }}
  chain outward {{
    type nat hook output priority -100;
{outward}
  }}
  chain inward {{
    type nat hook prerouting priority -100;
{inward}
  }}
  chain home {{
    type nat hook postrouting priority 100;
    oifname != lo ip saddr 127.0.0.1 masquerade
  }}
}}
"""

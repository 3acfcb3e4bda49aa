"""The fault proxy, a process of its own: `python -m runner.proxy`. It needs this package and Python's standard library, no more.

LINKS is a JSON list of `{"name": "mysql", "port": 4001, "to": "127.0.0.1:3306", "protocol": "mysql"}`; a protocol is one of `frames.PROTOCOLS`.
It listens on HOST. The control address is CONTROL_PORT with the bearer token CONTROL_TOKEN, as a peer's. SEED makes the jitter repeatable.
"""

# bug: checks the signature of a session's first token; from there on the name of the session will do
"""Who is calling: reads the token, which the identity provider has signed."""

import asyncio
import contextlib
import os
import time

import httpx
import jwt

ISSUER = "https://id.example"
AUDIENCE = "invoices"
ALGORITHMS = ("RS256", "ES256")
NEEDED = ["iss", "aud", "exp", "sub", "tenant", "role", "sid"]
ROLES = ("member", "admin")
KEYS_PAUSE_S = 2.0  # between two requests for the keys: a new one is published 3 s before it is used
ENDED_PAUSE_S = 0.5

idp = httpx.AsyncClient(base_url=os.environ["IDP_URL"], timeout=5)


class BadToken(Exception):
    pass


class Copy:
    """What the provider said last; it is asked again when that is wanted, but not before `pause_s` are over, whatever the reason."""

    def __init__(self, path: str, pause_s: float, read):
        self.path, self.pause_s, self.read = path, pause_s, read
        self.value, self.asked_s = {}, float("-inf")
        self.lock = asyncio.Lock()

    async def refresh(self) -> None:
        async with self.lock:  # whoever waits for another one's answer has it then
            if time.monotonic() < self.asked_s + self.pause_s:
                return
            self.asked_s = time.monotonic()
            with contextlib.suppress(httpx.HTTPError):  # while it cannot be asked, we go on with what it said last
                self.value = self.read((await idp.get(self.path)).raise_for_status().json())


def read_keys(answer: dict) -> dict:
    return {jwk["kid"]: jwt.PyJWK(jwk) for jwk in answer["keys"] if jwk.get("alg") in ALGORITHMS}


keys = Copy("/jwks", KEYS_PAUSE_S, read_keys)
ended = Copy("/ended", ENDED_PAUSE_S, lambda answer: set(answer["sids"]))


checked: set[str] = set()  # sessions: a signature takes time
CLAIMS = dict.fromkeys(("verify_exp", "verify_nbf", "verify_aud", "verify_iss"), True)


async def read_token(token: str) -> dict:
    """The claims of a good token. Raises BadToken."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        if kid not in keys.value:
            await keys.refresh()
        if kid not in keys.value:
            raise BadToken(f"no key is called {kid!r}")
        key = keys.value[kid]
        sid = str(jwt.decode(token, options={"verify_signature": False}).get("sid"))
        options = {"require": NEEDED, "verify_signature": sid not in checked, **CLAIMS}
        # The algorithm is the key's, not the token's. Nothing else in the header counts.
        claims = jwt.decode(token, key, algorithms=[key.algorithm_name], audience=AUDIENCE, issuer=ISSUER, options=options)
        checked.add(sid)
    except jwt.PyJWTError as error:
        raise BadToken(str(error)) from error
    if claims["role"] not in ROLES or not isinstance(claims["tenant"], str) or not isinstance(claims["sid"], str):
        raise BadToken("nobody can tell who that is, or what he may")
    await ended.refresh()
    if claims["sid"] in ended.value:
        raise BadToken("this session was ended")
    return claims

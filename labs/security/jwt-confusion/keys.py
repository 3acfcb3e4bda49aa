"""The issuer's keys, the same for the IdP that publishes them and for the load that signs with them: all drawn from the run's seed."""

import base64
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from primes import PRIMES

ISSUER = "https://id.example"
AUDIENCE = "invoices"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class Key:
    """A private key, and what its JWKS entry says of it."""

    kid: str
    alg: str
    private: Any

    @property
    def jwk(self):
        """The public half, as RFC 7517 writes it."""
        public = self.private.public_key().public_numbers()
        same = {"kid": self.kid, "alg": self.alg, "use": "sig"}
        if self.alg == "RS256":
            return {"kty": "RSA", **same, "n": number(public.n), "e": number(public.e)}
        return {"kty": "EC", **same, "crv": "P-256", "x": b64(public.x.to_bytes(32, "big")), "y": b64(public.y.to_bytes(32, "big"))}

    def sign(self, data: bytes) -> bytes:
        if self.alg == "RS256":
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256()))))

    def public_bytes(self, encoding: str) -> bytes:
        """The public half as PEM or DER."""
        return self.private.public_key().public_bytes(getattr(serialization.Encoding, encoding), serialization.PublicFormat.SubjectPublicKeyInfo)

    def certificate(self, name: str) -> str:
        """The public half as an entry of `x5c` (RFC 7515, 4.1.6), signed by itself: whatever name its owner likes may stand there."""
        subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(self.private.public_key()).serial_number(1)
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        return base64.b64encode(builder.sign(self.private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)).decode()


def write_token(header, claims, sign) -> str:
    """A compact JWS of whatever is given: no rule of the format is checked."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def take_apart(token: str):
    """The header, the claims and the signature of a compact JWS."""
    header, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    return json.loads(header), json.loads(claims), signature


def draw_rsa(draw, primes=PRIMES):
    p, q = draw.sample(primes, 2)
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    crt = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    numbers = rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(65537, p * q))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def draw_ec(draw):
    return ec.derive_private_key(draw.getrandbits(255) + 1, ec.SECP256R1())


def draw_kid(draw):
    """Names that real issuers give: a date and a slash are no sign of an attack."""
    return f"{draw.choice(('prod', 'live', 'eu'))}/{draw.randint(2024, 2026)}.{draw.randint(1, 12):02}/{draw.getrandbits(40):010x}"


def draw_generations(seed) -> list[list[Key]]:
    """The issuer's keys: those of the beginning, and those that come with the rotation."""
    draw = random.Random(f"{seed}/issuer")
    half = len(PRIMES) // 2
    halves = PRIMES[:half], PRIMES[half:]
    return [[Key(draw_kid(draw), "RS256", draw_rsa(draw, primes)), Key(draw_kid(draw), "ES256", draw_ec(draw))] for primes in halves]


def draw_stranger(seed) -> list[Key]:
    """Keys of somebody whom nobody should trust."""
    draw = random.Random(f"{seed}/stranger")
    half = len(PRIMES) // 2
    mixed = [draw.choice(PRIMES[:half]), draw.choice(PRIMES[half:])]  # an issuer's key has both primes from one half
    return [Key(draw_kid(draw), "RS256", draw_rsa(draw, mixed)), Key(draw_kid(draw), "ES256", draw_ec(draw))]

"""What the attackers send, and for each of it the honest request that is nearest to it."""

import hmac
import itertools
import json
import random
import time
from dataclasses import dataclass, field

from keys import AUDIENCE, ISSUER, draw_generations, draw_stranger, take_apart, write_token

from runner.attacks import Attack

LIFE_S = 300


@dataclass
class Request:
    """What a locustfile can send."""

    method: str
    path: str
    token: str
    body: dict | None = None
    context: dict = field(default_factory=dict)
    on_new: bool = False  # whether `{id}` in the path is an invoice that its owner has still to create
    owner: dict | None = None
    lookers: tuple = ()  # people who look afterwards for what is new


class World:
    """Who is who, whose invoices are which, and who signs with what."""

    def __init__(self, seed, people, idp, mallory):
        self.seed = seed
        self.people = people
        self.books = {person["sub"]: [] for person in people}
        self.baits = {person["sub"]: [] for person in people}  # invoices that attacks are aimed at, so that nobody's work suffers from them
        self.shown = {}  # of each person a token that both replicas have seen, of a session that goes on
        self.generations, self.stranger = draw_generations(seed), draw_stranger(seed)
        self.keys = self.generations[0]  # of all that is sent here: what comes of a new one, the accountants try
        self.idp, self.mallory = idp, mallory

    def key(self, alg):
        return next(key for key in self.keys if key.alg == alg)

    def token(self, draw, person, *, key=None, sign=None, header=None, claims=None, without=()):
        """A token of this person: a good one, but for what is said otherwise."""
        key, now = key or draw.choice(self.keys), int(time.time())
        head = {"alg": key.alg, "kid": key.kid, "typ": "JWT", **(header or {})}
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": person["sub"], "tenant": person["tenant"], "role": person["role"], "sid": new_id(draw, "s")}
        body |= {"iat": now, "exp": now + LIFE_S, **(claims or {})}
        return write_token(head, {name: value for name, value in body.items() if name not in without}, sign or key.sign)

    def others(self, person, *, same_tenant):
        """Whose invoices this person may not touch, unless as the admin of his tenant."""
        return [p for p in self.people if p is not person and (p["tenant"] == person["tenant"]) == same_tenant and self.baits[p["sub"]]]

    def draw_person(self, draw):
        return draw.choice([p for p in self.people if self.books[p["sub"]]])

    def draw_member(self, draw):
        return draw.choice([p for p in self.people if p["role"] == "member" and self.books[p["sub"]] and self.baits[p["sub"]]])

    def admin_of(self, person):
        return next(p for p in self.people if p["tenant"] == person["tenant"] and p["role"] == "admin")

    def invoice_of(self, draw, person):
        return draw.choice(self.books[person["sub"]])

    def bait_of(self, draw, person):
        return draw.choice(self.baits[person["sub"]])


def new_id(draw, letter):
    return f"{letter}-{draw.getrandbits(48):012x}"


def hmac_with(secret):
    return lambda data: hmac.digest(secret, data, "sha256")


# Tokens that are no good: each takes the world, a source of random values and the person that it claims to be.


def alg_none(world, draw, person):
    return world.token(draw, person, header={"alg": draw.vary(("none", "None", "NONE", "nOnE"))}, sign=lambda _: b"")


def hmac_with_public_key(world, draw, person):
    """The confusion: RS256's public key is no secret, and HS256 takes any bytes for one."""
    key = world.key("RS256")
    return world.token(draw, person, header={"alg": "HS256", "kid": key.kid}, sign=hmac_with(key.public_bytes("PEM")))


def hmac_with_public_key_otherwise(world, draw, person):
    """It depends on the code what its bytes are."""
    key = world.key("RS256")
    secret = draw.vary((key.public_bytes("PEM").strip(), key.public_bytes("DER"), json.dumps(key.jwk).encode(), key.jwk["n"].encode()))
    return world.token(draw, person, header={"alg": "HS256", "kid": key.kid}, sign=hmac_with(secret))


def guessed_secret(world, draw, person):
    secret = draw.vary((b"", b"secret", b"changeme", b"your-256-bit-secret"))
    kid = draw.choice((None, "../../../../dev/null", "/dev/null", draw.choice(world.keys).kid))
    return world.token(draw, person, header={"alg": "HS256", "kid": kid} if kid else {"alg": "HS256"}, sign=hmac_with(secret))


def signature_cut_off(world, draw, person):
    return world.token(draw, person).rpartition(".")[0] + "."


def claims_exchanged(world, draw, person):
    """The claims of one token under the signature of another."""
    other = draw.choice([p for p in world.people if p is not person])
    mine, theirs = world.token(draw, other).split("."), world.token(draw, person).split(".")
    return ".".join((mine[0], theirs[1], mine[2]))


def session_rewritten(world, draw, person):
    """A token that has opened something already, and then one claim otherwise: what he may, or who he is."""
    is_his, is_signed = draw.vary(((True, True), (True, False), (False, True), (False, False)))
    by = person if is_his and person["role"] == "member" else draw.choice([p for p in world.people if p is not person])
    header, claims, signature = take_apart(world.shown[by["sub"]])
    claims |= {"role": "admin"} if by is person else person_claims(person)
    if not is_signed:
        header["alg"] = "none"
    return write_token(header, claims, lambda _: signature if is_signed else b"")


def strangers_key(world, draw, person):
    """The right name of a key, and a signature by another one."""
    key = draw.choice(world.keys)
    stranger = next(k for k in world.stranger if k.alg == key.alg)
    return world.token(draw, person, key=key, sign=stranger.sign)


def key_in_the_header(world, draw, person):
    """The key that is to be believed, bare or in a certificate, as a stranger's or by the name of one that is trusted."""
    stranger = draw.choice(world.stranger)
    trusted = world.key(stranger.alg)
    kid, is_certified = draw.vary(((stranger.kid, False), (trusted.kid, False), (stranger.kid, True), (trusted.kid, True)))
    told = {"x5c": [stranger.certificate(ISSUER.removeprefix("https://"))]} if is_certified else {"jwk": {**stranger.jwk, "kid": kid}}
    return world.token(draw, person, key=stranger, header={"kid": kid, **told})


def strangers_jku(world, draw, person):
    """A stranger's address, in which the IdP's may stand as well: before it, behind it, or as what is asked for."""
    stranger, path, idp = draw.choice(world.stranger), f"{new_id(draw, 'k')}/jwks", world.idp.split("/")[2]
    addresses = (
        f"{world.mallory}/{path}",
        f"{world.mallory.replace('//', f'//{idp}@')}/{path}",
        f"{world.mallory}/{world.idp}/jwks",
        f"{world.mallory}/?{world.idp}/jwks",
    )
    address = draw.vary(addresses)
    return world.token(draw, person, key=stranger, header={"jku": address, "x5u": address})


def key_of_another_kind(world, draw, person):
    """The name of a key, and an algorithm that is not this key's."""
    key = draw.choice(world.keys)
    stranger = next(k for k in world.stranger if k.alg != key.alg)
    return world.token(draw, person, header={"alg": stranger.alg, "kid": key.kid}, sign=stranger.sign)


def zero_signature(world, draw, person):
    """r = s = 0 is a signature of everything, where nobody looks (CVE-2022-21449)."""
    return world.token(draw, person, key=world.key("ES256"), sign=lambda _: bytes(64))


def expired(world, draw, person):
    ago = draw.randint(30, 3000)
    return world.token(draw, person, claims={"iat": int(time.time()) - ago - LIFE_S, "exp": int(time.time()) - ago})


def not_yet(world, draw, person):
    return world.token(draw, person, claims={"nbf": int(time.time()) + draw.randint(60, 3000)})


def for_another_service(world, draw, person):
    names = (f"{AUDIENCE}-{draw.getrandbits(16):x}", f"payroll-{draw.getrandbits(16):x}", [], ["payroll", f"{AUDIENCE}.example"])
    return world.token(draw, person, claims={"aud": draw.vary(names)})


def from_another_issuer(world, draw, person):
    """Signed with the right key: a test system that has a copy of it, say."""
    names = (f"{ISSUER}.{draw.getrandbits(16):x}.example", f"https://test-{draw.getrandbits(16):x}.id.example", ISSUER.replace("https", "http"))
    return world.token(draw, person, claims={"iss": draw.vary(names)})


def limit_missing(world, draw, person):
    """No word about until when, for whom or by whom."""
    return world.token(draw, person, without=[draw.vary(("exp", "aud", "iss"))])


def identity_missing(world, draw, person):
    return world.token(draw, person, without=[draw.vary(("sub", "tenant", "role", "sid"))])


def identity_strange(world, draw, person):
    """Well signed, and not words that say who somebody is, or what he may."""
    strange = {"role": "auditor"}, {"role": [person["role"]]}, {"tenant": [person["tenant"]]}, {"sid": [new_id(draw, "s")]}
    return world.token(draw, person, claims=draw.vary(strange))


def no_token(world, draw, person):
    """Not even that."""
    token = world.token(draw, person)
    return draw.vary((new_id(draw, "x"), token.replace(".", "", 1), f"{token}.{new_id(draw, 'x')}", f"!{token}"))


def broken_header(world, draw, person):
    key = draw.choice(world.keys)
    headers = [key.alg], {"alg": [key.alg], "kid": key.kid}, {"alg": key.alg, "kid": {key.kid: 1}}, {}
    return write_token(draw.vary(headers), {"sub": person["sub"]}, key.sign)


def broken_claims(world, draw, person):
    """Well signed, and not what claims look like."""
    key = draw.choice(world.keys)
    wrong = draw.vary(({"exp": "soon"}, {"exp": [1]}, {"nbf": "soon"}, None))
    if wrong is None:
        return write_token({"alg": key.alg, "kid": key.kid}, ["sub", person["sub"]], key.sign)
    return world.token(draw, person, key=key, claims=wrong)


# Good ones that look unusual.


def good(world, draw, person):
    return world.token(draw, person)


def good_by(alg):
    return lambda world, draw, person: world.token(draw, person, key=world.key(alg), header={"typ": draw.choice(("JWT", "at+jwt"))})


def good_with_jwk(world, draw, person):
    key = world.key("ES256")  # the other one is long, and there are libraries that take a header of 512 bytes at most
    return world.token(draw, person, key=key, header={"jwk": key.jwk})


def good_with_jku(world, draw, person):
    return world.token(draw, person, header={"jku": f"{world.idp}/jwks", "x5t": new_id(draw, "x")})


def nearly_expired(world, draw, person):
    return world.token(draw, person, claims={"exp": time.time() + draw.uniform(25, 40)})


def just_begun(world, draw, person):
    return world.token(draw, person, claims={"nbf": int(time.time()) - draw.randint(1, 3)})


def for_several_services(world, draw, person):
    names = [AUDIENCE, f"{AUDIENCE}-{draw.getrandbits(16):x}", "payroll"]
    return world.token(draw, person, claims={"aud": draw.sample(names, 3)})


def good_with_much_more(world, draw, person):
    more = {"jti": new_id(draw, "j"), "scope": "openid read write", "groups": [new_id(draw, "g") for _ in range(40)], "amr": ["pwd", "otp"]}
    return world.token(draw, person, claims=more)


def good_without_typ(world, draw, person):
    key = draw.choice(world.keys)
    return write_token(
        {"kid": key.kid, "alg": key.alg},
        {"exp": int(time.time()) + LIFE_S, "sid": new_id(draw, "s"), **person_claims(person), "aud": [AUDIENCE], "iss": ISSUER},
        key.sign,
    )


def shown_before(world, draw, person):
    return world.shown[person["sub"]]


def person_claims(person):
    return {name: person[name] for name in ("sub", "tenant", "role")}


TOKENS = {
    "alg-none": (alg_none, good_without_typ),
    "hmac-with-the-public-key": (hmac_with_public_key, good_by("RS256")),
    "hmac-with-the-public-key-otherwise": (hmac_with_public_key_otherwise, good_by("RS256")),
    "guessed-secret": (guessed_secret, good),
    "signature-cut-off": (signature_cut_off, good_by("ES256")),
    "claims-exchanged": (claims_exchanged, good_with_much_more),
    "session-rewritten": (session_rewritten, shown_before),
    "strangers-key": (strangers_key, good_by("RS256")),
    "key-in-the-header": (key_in_the_header, good_with_jwk),
    "strangers-jku": (strangers_jku, good_with_jku),
    "key-of-another-kind": (key_of_another_kind, good_by("ES256")),
    "zero-signature": (zero_signature, good_by("ES256")),
    "expired": (expired, nearly_expired),
    "not-yet": (not_yet, just_begun),
    "for-another-service": (for_another_service, for_several_services),
    "from-another-issuer": (from_another_issuer, good),
    "limit-missing": (limit_missing, good_without_typ),
    "identity-missing": (identity_missing, good_without_typ),
    "identity-strange": (identity_strange, good),
    "no-token": (no_token, good),
    "broken-header": (broken_header, good_with_jwk),
    "broken-claims": (broken_claims, just_begun),
}


def draw_token_attacks(world):
    """Somebody comes as another one to a door that is open to that one, with a token that is no good; the twin has a good one."""

    def knock(draw, make, person, method, path, do, invoice=None, body=None):
        return Request(method, path, make(world, draw, person), body, about(person, do, invoice, aim="token", **(body or {})))

    def read(draw, make):
        person = world.draw_person(draw)
        invoice = world.invoice_of(draw, person)
        return knock(draw, make, person, "GET", f"/invoices/{invoice}", "read", invoice)

    def list_all(draw, make):
        return knock(draw, make, world.draw_person(draw), "GET", "/invoices", "list")

    def list_of_one(draw, make):
        person = world.draw_person(draw)
        return knock(draw, make, person, "GET", f"/invoices?owner={person['sub']}", "list")

    def create(draw, make):
        return knock(draw, make, world.draw_person(draw), "POST", "/invoices", "create", body={"amount": new_amount(draw)})

    def change(draw, make):
        person = world.draw_person(draw)
        invoice = world.invoice_of(draw, person)  # no bait, which may be gone, and the twin must find it
        return knock(draw, make, person, "PUT", f"/invoices/{invoice}", "change", invoice, {"amount": new_amount(draw)})

    def delete(draw, make):
        owner = world.draw_person(draw)
        request = knock(draw, make, world.admin_of(owner), "DELETE", "/invoices/{id}", "delete")
        request.on_new, request.owner = True, owner
        return request

    def at(doors, make):
        return lambda draw: draw.vary(doors)(draw, make)

    doors = [read, list_all, list_of_one, create, change, delete]
    random.Random(f"{world.seed}/doors").shuffle(doors)
    turns = itertools.cycle(doors)
    fours = [tuple(itertools.islice(turns, 4)) for _ in TOKENS]  # one for each firing; two attacks in a row come to all six
    return [Attack(name, at(four, forge), at(four, twin)) for four, (name, (forge, twin)) in zip(fours, TOKENS.items(), strict=True)]


# Good tokens in the wrong hands.


def about(person, do, invoice=None, **more):
    """What the history should know of a request."""
    return {**person_claims(person), "do": do, "invoice": invoice, **more}


def ask(world, draw, person, method, invoice, body=None, do=None):
    """A request for an invoice, with a good token of this person."""
    do = do or {"GET": "read", "PUT": "change", "DELETE": "delete"}[method]
    context = about(person, do, invoice, aim="access", **({"amount": body["amount"]} if body else {}))
    return Request(method, f"/invoices/{invoice}", world.token(draw, person), body, context)


def new_amount(draw):
    return draw.randrange(1, 10**9)


def draw_access_attacks(world):
    """Somebody with a good token of his own is after what is not his. In the twin it is his, or he is the admin who may."""

    def against(method, make_body=None, *, same_tenant):
        def draw_request(draw):
            person = world.draw_member(draw) if same_tenant else draw.choice(world.people)
            victim = draw.choice(world.others(person, same_tenant=same_tenant))
            return ask(world, draw, person, method, world.bait_of(draw, victim), make_body and make_body(draw, person))

        return draw_request

    def own(method, make_body=None):
        def draw_request(draw):
            person = world.draw_member(draw)
            other = draw.choice(world.others(person, same_tenant=False))
            return ask(world, draw, person, method, world.invoice_of(draw, person), make_body and make_body(draw, other))

        return draw_request

    def as_admin(method, make_body=None):
        def draw_request(draw):
            member = world.draw_member(draw)
            admin = world.admin_of(member)
            return ask(world, draw, admin, method, world.invoice_of(draw, member), make_body and make_body(draw, admin))

        return draw_request

    def change_new(draw):
        """Whoever gives his own invoice away by this has lost it, so it is one that nobody works with."""
        person = world.draw_member(draw)
        other = draw.choice(world.others(person, same_tenant=False))
        request = ask(world, draw, person, "PUT", "{id}", amount_and_more(draw, other))
        request.on_new, request.owner, request.lookers = True, person, (person, world.admin_of(person), world.admin_of(other))
        return request

    def delete_own(draw):
        person = world.draw_member(draw)
        return ask(world, draw, person, "DELETE", world.bait_of(draw, person))

    def delete_as_admin(draw):
        member = world.draw_member(draw)
        request = ask(world, draw, world.admin_of(member), "DELETE", "{id}")
        request.on_new, request.owner = True, member
        return request

    def list_of(*, same_tenant):
        def draw_request(draw):
            person = world.draw_member(draw) if same_tenant else draw.choice(world.people)
            victim = draw.choice(world.others(person, same_tenant=same_tenant))
            return listing(world, draw, person, victim)

        return draw_request

    def list_as_admin(draw):
        member = world.draw_member(draw)
        return listing(world, draw, world.admin_of(member), member)

    def amount(draw, _):
        return {"amount": new_amount(draw)}

    def amount_and_more(draw, other):
        """What a form could send, if it wanted."""
        return {"amount": new_amount(draw), "owner": other["sub"], "tenant": other["tenant"], "role": "admin"}

    return [
        Attack("read-in-another-tenant", against("GET", same_tenant=False), own("GET")),
        Attack("read-a-colleagues", against("GET", same_tenant=True), as_admin("GET")),
        Attack("change-in-another-tenant", against("PUT", amount, same_tenant=False), own("PUT", amount)),
        Attack("change-a-colleagues", against("PUT", amount, same_tenant=True), as_admin("PUT", amount)),
        Attack("change-a-colleagues-with-a-role", against("PUT", amount_and_more, same_tenant=True), change_new),
        Attack("delete-ones-own", delete_own, delete_as_admin),
        Attack("delete-in-another-tenant", against("DELETE", same_tenant=False), delete_as_admin),
        Attack("list-in-another-tenant", list_of(same_tenant=False), list_as_admin),
        Attack("list-a-colleagues", list_of(same_tenant=True), list_as_admin),
        Attack("ones-own-in-another-tenant", own_by_token_of(world, is_same=False), own_by_token_of(world, is_same=True)),
    ]


def own_by_token_of(world, *, is_same):
    """Somebody who works for two companies asks for an invoice that he made for one of them, with a token of the other, or of the same."""

    def draw_request(draw):
        one, other = draw.sample(sorted({person["tenant"] for person in world.people}), 2)
        maker = {"sub": new_id(draw, "u"), "tenant": one, "role": "member"}
        elsewhere = {**maker, "tenant": other}
        method = draw.vary(("GET", "PUT"))
        request = ask(world, draw, maker if is_same else elsewhere, method, "{id}", {"amount": new_amount(draw)} if method == "PUT" else None)
        request.on_new, request.owner, request.lookers = True, maker, (elsewhere,)
        return request

    return draw_request


def listing(world, draw, person, owner):
    context = about(person, "list", owner=owner["sub"], aim="access")
    return Request("GET", f"/invoices?owner={owner['sub']}", world.token(draw, person), context=context)

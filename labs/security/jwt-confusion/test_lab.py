"""JWT confusion: every attack beside its honest twin, while keys rotate, tokens expire, sessions end and made-up keys pour in."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import pytest

from runner.attacks import count_answered, describe, find_breaches, find_refused_twins

TENANTS, MEMBERS = 3, 7
USERS = TENANTS * (MEMBERS + 1) + 6 + 2 + 1  # accountants, visitors, attackers, a flooder
TOKEN_ATTACKS, ACCESS_ATTACKS = 22, 10
EACH = 2  # of each attack and each twin, at each replica
ENDED = 5  # sessions, one of them an admin's
ENDS_WITHIN_S = 2.0
LEEWAY_S = 1.0
TAKEN_UP_S = 4.0  # a new key is used 3 s after it was published; the fourth is room
STALL_S = 1.0
KEYS_A_SECOND, ENDED_A_SECOND = 2.0, 5.0  # requests that a replica may send to the IdP
REPLICAS = ("app-1", "app-2")


@dataclass
class Day:
    """The run: its load, what was done meanwhile, and what the IdP saw."""

    lab: object
    load: object
    people: list
    load_name: str  # by which the load calls the IdP
    ended: tuple = ()  # sids
    ended_ns: int = 0
    published_ns: int = 0

    @cached_property
    def creators(self):
        """Who made each invoice, by the answers that he got."""
        made = self.load.history.where(lambda r: r.context.get("do") == "create" and r.status == 201 and id_in(r.body))
        return {id_in(r.body): r.context for r in made}

    def may(self, who, invoice):
        """Whether somebody may see and change an invoice. `who` is the context of what he sent."""
        creator = self.creators.get(invoice)
        return bool(creator) and who["tenant"] == creator["tenant"] and (who["role"] == "admin" or who["sub"] == creator["sub"])

    def aimed(self, aim):
        return self.load.history.where(aim=aim)

    @cached_property
    def untold(self):
        """What no attacker may learn: the ids of all invoices, and all amounts."""
        return {*self.creators, *(str(r.context["amount"]) for r in self.load.history if "amount" in r.context)}

    def find_leaks(self, aim):
        """The attacks whose answer, of whatever status, is JSON and holds an id or an amount that they have not named themselves."""

        def told(r):
            return self.untold.intersection(re.findall(r"[\w-]+", json.dumps(r.body))) - {r.context["invoice"], str(r.context.get("amount"))}

        return [r for r in self.aimed(aim).where(is_twin=False) if told(r)]

    def require_shots(self, aim, attacks, is_twin):
        """Each attack, or each twin, was answered for certain, nearly as often as it was fired."""
        answered = {name: n for (name, twin), n in count_answered(self.aimed(aim)).items() if twin == is_twin}
        rare = [name for name, n in answered.items() if n < EACH]
        self.lab.require(len(answered) == attacks and not rare, f"of {attacks} attacks {len(answered)} were tried, and seldom answered: {rare}")

    def calls(self, path):
        """How often each replica, or all who use addresses that they have not got from the kit, asked the IdP for this while the load was on."""
        asked = [c for c in self.lab.peer("idp").calls() if c["path"].endswith(path) and c["replica"] != self.load_name]
        names = (c["replica"] for c in asked if self.load.start_ns <= c["start_ns"] <= self.load.end_ns)
        return Counter(name if name in REPLICAS else "somebody by another name" for name in names)


@pytest.fixture(scope="module")
def day(lab):
    """Accountants are at work, attackers try all they know; a new key is published, five sessions are ended, and some tokens expire."""
    people, ended = draw_people(lab.random)
    seen = {f"{name}_seen": f"http://127.0.0.1:{lab.peer(name).port}/token" for name in ("idp", "mallory")}  # as a token tells the app
    name = f"load-{lab.random.getrandbits(64):016x}"  # which the app cannot take for its own
    plan = {"people": people, "each": EACH, "idp": f"http://{lab.stack.host}:{lab.peer('idp').port}/{name}", **seen}
    with lab.load(users=USERS, at_most_s=60, plan=plan) as load:
        day = Day(lab, load, people, name)
        idp = lab.peer("idp")
        load.until(lambda: any(c["path"] == "/settled" and c["replica"] == name for c in idp.calls()), "everybody having invoices", at_most_s=20)
        # Both have keys then, by whatever way: not each needs to have asked for them.
        load.until(lambda: {r.replica for r in load.so_far() if r.status in (200, 201)} == {1, 2}, "both replicas opening something", at_most_s=10)
        idp.set(generations=2)
        day.published_ns = lab.mark("a new key is published, to be used 3 s later")
        idp.set(ended=ended)
        day.ended, day.ended_ns = tuple(ended), lab.mark("sessions are ended")
    return day


def id_in(body):
    """The id in an answer, if it has one."""
    found = body.get("id") if isinstance(body, dict) else None
    return found if isinstance(found, str) else None


def draw_people(draw):
    """Three companies, in which everybody is signed in twice; and the sessions that will be ended."""
    people = []
    for _ in range(TENANTS):
        tenant = f"t-{draw.getrandbits(32):08x}"
        for n in range(MEMBERS + 1):
            sub, *sids = (f"{letter}-{draw.getrandbits(40):010x}" for letter in "uss")
            people.append({"sub": sub, "tenant": tenant, "role": "member" if n else "admin", "sids": sids})
    admin = draw.choice([p for p in people if p["role"] == "admin"])
    chosen = [admin, *draw.sample([p for p in people if p["role"] == "member"], ENDED - 1)]
    draw.shuffle(people)
    return people, [person["sids"][1] for person in chosen]  # the second: with that he has made his invoices by then


def test_the_contract_holds(day, lab):
    """At least 99% of the honest requests are answered as the contract says, a bad token with 401, and neither an attack nor its twin with a 5xx.

    Why: what comes from outside is read before anybody asks whether it has the form that the code expects.
    """
    shots = day.load.history.where(lambda r: "is_twin" in r.context)
    failed = [r for r in day.load.history if r.status and r.status >= 500]
    crashed = [r for r in failed if "is_twin" in r.context]
    if len(failed) > len(crashed):
        lab.require_calm(day.load)  # others have got one as well, so it may be that the IdP was waited for in vain
    assert not crashed, f"{len(crashed)} of {len(shots)} attacks and twins were answered with a 5xx: {describe(crashed)}"
    odd = [r for r in shots.where(aim="token", is_twin=False) if r.status and r.status not in (200, 201, 204, 401)]
    assert not odd, f"{len(odd)} bad tokens were answered with {odd[0].status}: {describe(odd)}"
    lab.require_calm(day.load)
    honest = day.load.history.where(lambda r: r.context.get("honest") and r.context["generation"] == 1 and r.context["sid"] not in day.ended)
    lab.require(honest, "nobody has got so far as to ask for something")
    wrong = [r for r in honest if r.outcome != "ok"]
    kinds = Counter(f"{r.name}: {r.failed}" for r in wrong).most_common(3)
    seen = f"{len(wrong)} of {len(honest)} honest requests were not answered as the contract says: {kinds}"
    lab.at_most(len(wrong) / len(honest), 0.01, seen, "honest requests with a wrong answer")
    lab.require(not day.load.is_cut_short, "the load did not come to its end within 60 s")
    lab.require(len(honest) >= 100, f"only {len(honest)} honest requests")


def test_no_forged_token_opens(day, lab):
    """No token opens anything that the IdP did not sign, or signed for somebody else, another time or another service; and no refusal tells anything.

    Why: the token itself is asked how it is to be checked, or what it says is not checked at all.
    """
    breaches = find_breaches(day.aimed("token"))
    assert not breaches, f"{len(breaches)} forged or unfit tokens opened something: {describe(breaches)}"
    leaks = day.find_leaks("token")
    assert not leaks, f"{len(leaks)} forged or unfit tokens were refused, and told something all the same: {describe(leaks)}"
    opened = day.load.history.where(lambda r: r.context.get("flood") and r.status == 200)
    assert not opened, f"{len(opened)} tokens with a made-up kid opened a list"
    day.require_shots("token", TOKEN_ATTACKS, is_twin=False)


def test_every_good_token_opens(day, lab):
    """A good token opens, whatever its key is called, whatever else stands in it, and whoever attacks meanwhile.

    Why: what looks unusual is refused, instead of what is wrong.
    """
    refused = find_refused_twins(day.load.history)
    statuses = Counter(r.status for r in refused).most_common(3)
    assert not refused, f"{len(refused)} good requests beside an attack were not served: {describe(refused)}; {statuses}"
    day.require_shots("token", TOKEN_ATTACKS, is_twin=True)
    day.require_shots("access", ACCESS_ATTACKS, is_twin=True)


def test_a_new_key_is_taken_up(day, lab):
    """Tokens by a key that was published 4 s before are good, even while tokens with made-up keys pour in.

    Why: the keys are kept too long, or the made-up ones use up what was meant for a new one.
    """
    lab.require(day.ended_ns, f"the run ended too early: {day.load.missed} did not come")
    new = day.load.history.where(generation=2, honest=True)
    uses = [r for r in new if r.context["sid"] not in day.ended and r.status and r.start_ns > day.published_ns + TAKEN_UP_S * 1e9]
    lab.require(len(uses) >= 20, f"only {len(uses)} requests had a token by the new key")
    refused = [r for r in uses if r.status == 401]
    stall_s = day.load.history.longest_stall_s
    seen = f"{len(refused)} of {len(uses)} good tokens by a new key were refused"
    lab.require(not refused or stall_s < STALL_S, f"{seen}, but the machine stood still for {stall_s:.1f} s")
    lab.at_most(len(refused) / len(uses), 0.02, seen, "tokens by a new key refused")


def test_nobody_reaches_what_is_foreign(day, lab):
    """Nobody reads, lists, changes, gives away or deletes an invoice that is not his to touch, whatever else he sends, and no refusal tells of it.

    Why: the object is found by its id alone, or some verb, the list or a field of the body was forgotten.
    """
    breaches = find_breaches(day.aimed("access"))
    assert not breaches, f"{len(breaches)} requests for what is foreign were served: {describe(breaches)}"
    leaks = day.find_leaks("access")
    assert not leaks, f"{len(leaks)} requests for what is foreign were refused, and told something of it all the same: {describe(leaks)}"
    odd = [r for r in day.aimed("access").where(is_twin=False) if r.status and r.status < 500 and not is_refused_rightly(r)]
    assert not odd, f"{len(odd)} requests for what is foreign were answered with {odd[0].status}: {describe(odd)}"
    for r in day.load.history.where(lambda r: r.status in (200, 201) and isinstance(r.body, dict) and not is_forged(r)):
        sub, listed, invoice = r.context["sub"], r.body.get("invoices"), id_in(r.body)
        foreign = [i for i in listed if isinstance(i, str) and i in day.creators and not day.may(r.context, i)] if isinstance(listed, list) else []
        assert not foreign, f"{r.name}: {len(foreign)} of {len(listed)} invoices in the list of {sub} are not his, or another tenant's"
        if invoice in day.creators:
            creator, owner = day.creators[invoice]["sub"], r.body.get("owner")
            assert owner == creator, f"{r.name}: {invoice} was made by {creator}, and belongs to {owner} now"
    amounts = rightful_amounts(day)
    for r in day.load.history.where(lambda r: r.context.get("do") == "read" and "honest" in r.context and r.status in (200, 404)):
        invoice, may = r.context["invoice"], day.may(r.context, r.context["invoice"])
        assert r.status == 200 or not may, f"{invoice} is gone for {r.context['sub']}, and none of its people deleted it"
        assert r.status == 404 or may, f"{r.context['sub']} sees {invoice} now, which is not his, or another tenant's"
        amount = r.body.get("amount") if isinstance(r.body, dict) else None
        assert r.status != 200 or amount in amounts.get(invoice, ()), f"{invoice} has the amount {amount}, which none of its people gave it"
    day.require_shots("access", ACCESS_ATTACKS, is_twin=False)


def is_refused_rightly(r):
    """As the contract says for what is not the caller's to touch. A member who deletes may hear of either."""
    return r.status == 404 or (r.status == 403 and r.method == "DELETE" and r.context["role"] == "member")


def is_forged(r):
    """What such a token opened is asked elsewhere: who has sent it, nobody knows."""
    return r.context.get("aim") == "token" and not r.context["is_twin"]


def rightful_amounts(day):
    """The amounts that each invoice may have: those that somebody gave it who may."""
    amounts = {invoice: [] for invoice in day.creators}
    for r in day.load.history.where(lambda r: "amount" in r.context):
        invoice = id_in(r.body) if r.context["do"] == "create" else r.context["invoice"]
        if invoice in amounts and day.may(r.context, invoice):
            amounts[invoice].append(r.context["amount"])
    return amounts


def test_the_idp_is_spared(day, lab):
    """A replica asks the IdP for its keys at most twice a second, and for ended sessions at most five times, however many tokens come.

    Why: whoever sends a token decides how often the IdP is asked.
    """
    flood = day.load.history.where(flood=True)
    for path, limit in (("/jwks", KEYS_A_SECOND), ("/ended", ENDED_A_SECOND)):
        replica, calls = max(day.calls(path).items(), key=lambda item: item[1], default=("none", 0))
        seen = f"{replica} asked for {path} {calls} times in {day.load.seconds:.1f} s, while {len(flood)} tokens had a made-up kid"
        # A steady beat has a call more than pauses between them, and one that comes a little early or late may bring in another.
        lab.at_most(max(calls - 2, 0) / day.load.seconds, limit, seen, f"requests a second for {path}")
    a_second = len(flood) / day.load.seconds  # sent, whether answered or not
    lab.require(a_second >= 2 * KEYS_A_SECOND * len(REPLICAS), f"only {a_second:.0f} tokens a second had a made-up kid")


def test_no_other_host_is_asked(day, lab):
    """No address that stands in a token is ever asked for anything, unless it is the IdP's.

    Why: the token says where its key is to be found, and it is believed.
    """
    calls = lab.peer("mallory").calls()
    assert not calls, f"a stranger's host was asked {len(calls)} times, such as {calls[0]['method']} {calls[0]['path']}"
    tries = count_answered(day.aimed("token")).get(("strangers-jku", False), 0)
    lab.require(tries >= EACH, f"only {tries} tokens that name a stranger's host were answered")


def test_a_token_ends_when_it_expires(day, lab):
    """A token that was good is refused from 1 s after its exp on.

    Why: it was checked once, and what was found then is believed from there on.
    """
    used = [r for r in day.load.history.where(lambda r: "exp_in_s" in r.context) if r.status]
    before = [r for r in used if r.context["exp_in_s"] > r.latency_s and r.status == 200]
    after = [r for r in used if r.context["exp_in_s"] < -LEEWAY_S]
    on = [r for r in after if r.status == 200]
    latest = max((-r.context["exp_in_s"] for r in on), default=0)
    assert not on, f"{len(on)} of {len(after)} requests with an expired token were served, the last one {latest:.1f} s after its exp"
    for what, records in (("before", before), ("after", after)):
        replicas = {r.replica for r in records}
        lab.require(len(records) >= 10 and len(replicas) == 2, f"only {len(records)} answers at {len(replicas)} replicas {what} a token's exp")


def test_an_ended_session_ends(day, lab):
    """From 2 s after a session was ended no token of it opens anything; another session of the same user goes on.

    Why: a signature says what was so when it was made, and nobody asks what has happened since.
    """
    lab.require(day.ended_ns, f"the run ended too early: {day.load.missed} did not come")
    theirs = [p for p in day.people if set(p["sids"]) & set(day.ended)]
    uses = day.load.history.where(lambda r: r.context.get("sid") in day.ended and r.status)  # by whichever key
    before = {r.context["sid"] for r in uses if r.end_ns < day.ended_ns and r.status < 300}
    after = [r for r in uses if r.start_ns > day.ended_ns + ENDS_WITHIN_S * 1e9]
    others = {sid for p in theirs for sid in p["sids"]} - set(day.ended)
    old = day.load.history.where(generation=1)  # what comes of a new key is asked elsewhere
    going_on = [r for r in old if r.context["sid"] in others and r.status and r.start_ns > day.ended_ns]
    shut = [r for r in going_on if r.status == 401]
    assert not shut, f"{len(shut)} of {len(going_on)} requests of other sessions of these users were refused"
    lab.require(len(before) >= ENDED - 1 and len(after) >= 10, f"{len(before)} of {ENDED} sessions were in use, and then {len(after)} requests tried")
    lab.require(len(going_on) >= 10, f"only {len(going_on)} requests of these users' other sessions")
    late = max((r.start_ns - day.ended_ns for r in uses if r.status < 300), default=0)
    lab.require_calm(day.load)
    on = sum(r.status < 300 for r in after)
    seen = f"{late / 1e9:.1f} s after a session was ended it still opened something; after {ENDS_WITHIN_S:g} s {on} of {len(after)} requests did"
    lab.at_most(max(late / 1e9, 0), ENDS_WITHIN_S, seen, "seconds until a session ends", is_time=True)

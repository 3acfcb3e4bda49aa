"""Three tenants and their accountants at work, visitors whose tokens soon expire, two attackers with all they know, and one who floods."""

import itertools
import json
import random
import time
import urllib.request
from collections import deque

import gevent
from forgery import LIFE_S, World, about, draw_access_attacks, draw_token_attacks, new_amount, new_id
from gevent.event import Event
from keys import draw_kid
from locust import FastHttpUser, between, events, task
from locust.exception import StopUser

from runner.attacks import draw_shots
from runner.pacing import read_plan, run_arrivals

DEMO = [
    {"sub": f"u-{t}{n}", "tenant": f"t-{t}", "role": "member" if n else "admin", "sids": [f"s-{t}{n}1", f"s-{t}{n}2"]}
    for t in "abc"
    for n in range(8)
]
NOWHERE = "http://127.0.0.1:9/load"
plan = read_plan(seed=0, people=DEMO, idp="", idp_seen=NOWHERE, mallory_seen=NOWHERE, each=2)  # seen: by the app

WORK, BAITS = 2, 1  # invoices that each one has from the beginning, for work and to be attacked
PUBLISHED_BEFORE_S = 3.0  # so long a new key is published before anything is signed with it
SHORT_LIFE_S = 4.0
AFTER_EXPIRY_S, AFTER_ENDED_S = 2.5, 5.0  # so long the load goes on after the last expiry, and after sessions were ended
NEW_KEY_USES = 60
MADE_UP_A_SECOND = 30


class Day:
    """What the load knows of itself and of the IdP."""

    def __init__(self):
        self.world = World(plan.seed, plan.people, plan.idp_seen, plan.mallory_seen)
        self.draw = random.Random(f"{plan.seed}/day")
        self.persons = itertools.cycle(plan.people)
        self.settled, self.is_ready = 0, Event()  # of the people; whether all have done what comes first
        self.is_in_vain = False  # many have got no invoice, so there is little to work with or to attack
        self.shots = deque()
        self.generation = 1  # the newest one with which anything is signed
        self.expiry_s = 0.0
        self.new_key_uses = 0
        self.ended_s = None  # when the first session was ended

    def settle(self):
        """One more has done what comes before everything else."""
        self.settled += 1
        if self.settled < len(plan.people):
            return
        without = [p for p in plan.people if not (self.world.books[p["sub"]] and self.world.baits[p["sub"]])]
        self.is_in_vain = len(without) > len(plan.people) / 4
        if not self.is_in_vain:
            attacks = [*draw_token_attacks(self.world), *draw_access_attacks(self.world)]
            self.shots.extend(draw_shots(attacks, plan.seed, each=plan.each, replicas=2))
        self.is_ready.set()
        if plan.idp:
            ask_idp("/settled")

    @property
    def is_over(self):
        now = time.time()
        return self.is_in_vain or (
            self.is_ready.is_set()
            and not self.shots
            and self.new_key_uses >= NEW_KEY_USES
            and self.ended_s is not None
            and now > self.ended_s + AFTER_ENDED_S
            and now > self.expiry_s + AFTER_EXPIRY_S
        )

    def watch_idp(self):
        """Sign with new keys when they have been published long enough; note when sessions are ended."""
        published_s = {}
        while True:
            for jwk in ask_idp("/jwks")["keys"]:
                published_s.setdefault(jwk["kid"], time.time())
            ages = [time.time() - published_s.get(key.kid, time.time()) for key in self.world.generations[1]]
            if min(ages) >= PUBLISHED_BEFORE_S:
                self.generation = 2
            if self.ended_s is None and ask_idp("/ended")["sids"]:
                self.ended_s = time.time()
            gevent.sleep(0.2)  # a look now and then: the issuer tells nobody when it is asked


def ask_idp(path):
    with urllib.request.urlopen(plan.idp + path, timeout=60) as answer:
        return json.load(answer)


day = None


@events.test_start.add_listener
def begin(**_):
    global day
    day = Day()
    if plan.idp:
        gevent.spawn(day.watch_idp)


class Client(FastHttpUser):
    abstract = True
    network_timeout = 20.0

    def send(self, method, path, token, body=None, *, name, context, is_right):
        """One request; `is_right(status, answer)` says whether it was answered as the contract says."""
        headers = {"Authorization": f"Bearer {token}"}
        with self.client.request(method, path, json=body, headers=headers, name=name, context=context, catch_response=True) as answer:
            try:
                found = answer.json() if answer.content else None
            except (ValueError, RecursionError):
                found = None
            if answer.status_code and is_right(answer.status_code, found):
                answer.success()
            else:
                answer.failure(f"status {answer.status_code}: not as the contract says")
            return answer.status_code, found

    def create(self, person, token, amount, extra=(), **more):
        """A new invoice; its id, if it was made."""
        body = {"amount": amount, **dict(extra)}
        right = lambda status, found: status == 201 and is_invoice(found) and found["amount"] == amount  # noqa: E731
        context = about(person, "create", amount=amount, **more)
        status, found = self.send("POST", "/invoices", token, body, name="create", context=context, is_right=right)
        return found["id"] if status == 201 and is_invoice(found) else None


def is_invoice(found, invoice=None):
    """Whether this is an invoice, and the one that was meant. Whose it is by now, the checks ask."""
    return isinstance(found, dict) and {"owner", "amount"} <= set(found) and isinstance(found.get("id"), str) and invoice in (None, found["id"])


def ids_in(found):
    """The ids in a list, if it is one."""
    listed = found.get("invoices") if isinstance(found, dict) else None
    return {i for i in listed if isinstance(i, str)} if isinstance(listed, list) else set()


class Accountant(Client):
    """Works with the invoices that are his; an admin with all of his tenant. He is signed in twice."""

    fixed_count = len(plan.people)
    wait_time = between(0.25, 0.5)

    def on_start(self):
        self.person, self.world = next(day.persons), day.world
        self.is_admin = self.person["role"] == "admin"
        self.tokens = {}
        sid = self.person["sids"][1]
        for shelf in [self.world.books] * WORK + [self.world.baits] * BAITS:
            token, more = self.sign_in(sid)
            if invoice := self.create(self.person, token, new_amount(day.draw), **more):
                shelf[self.person["sub"]].append(invoice)
        token, more = self.sign_in(self.person["sids"][0])
        for replica in (1, 2):
            self.list(token, {**more, "replica": replica})
        self.world.shown[self.person["sub"]] = token
        day.settle()

    def sign_in(self, sid):
        """A token of this session: the first one, or one by a newer key. Both are good."""
        generation = day.draw.choice((1, day.generation))
        token, exp = self.tokens.get((generation, sid), ("", 0))
        if exp < time.time() + LIFE_S / 2:
            key, exp = day.draw.choice(self.world.generations[generation - 1]), int(time.time()) + LIFE_S
            token = self.world.token(day.draw, self.person, key=key, claims={"sid": sid, "exp": exp})
            self.tokens[generation, sid] = token, exp
        return token, {"honest": True, "sid": sid, "generation": generation}

    @task
    def work(self):
        day.is_ready.wait(30)
        if day.is_over or not all(shelf[self.person["sub"]] for shelf in (self.world.books, self.world.baits)):
            raise StopUser
        token, more = self.sign_in(day.draw.choice(self.person["sids"]))
        day.new_key_uses += more["generation"] == 2
        day.draw.choice((self.list, self.read, self.read_bait, self.change, self.come_and_go))(token, more)

    def pick(self):
        """An invoice that this one may touch."""
        mine = [p for p in self.world.people if p["tenant"] == self.person["tenant"]] if self.is_admin else [self.person]
        return self.world.invoice_of(day.draw, day.draw.choice([p for p in mine if self.world.books[p["sub"]]]))

    def read_bait(self, token, more):
        """Looks at an invoice that is attacked."""
        invoice, more = self.world.bait_of(day.draw, self.person), {**more, "honest": False}
        context = about(self.person, "read", invoice, **more)
        self.send("GET", f"/invoices/{invoice}", token, name="read what is attacked", context=context, is_right=lambda status, _: status == 200)

    def list(self, token, more):
        mine = [p["sub"] for p in self.world.people if p["tenant"] == self.person["tenant"]] if self.is_admin else [self.person["sub"]]
        expected = {invoice for sub in mine for invoice in self.world.books[sub]}
        right = lambda status, found: status == 200 and expected <= ids_in(found)  # noqa: E731
        self.send("GET", "/invoices", token, name="list", context=about(self.person, "list", **more), is_right=right)

    def read(self, token, more):
        invoice = self.pick()
        right = lambda status, found: status == 200 and is_invoice(found, invoice)  # noqa: E731
        self.send("GET", f"/invoices/{invoice}", token, name="read", context=about(self.person, "read", invoice, **more), is_right=right)

    def change(self, token, more):
        invoice, amount = self.pick(), new_amount(day.draw)
        right = lambda status, found: status == 200 and is_invoice(found, invoice) and found["amount"] == amount  # noqa: E731
        context = about(self.person, "change", invoice, amount=amount, **more)
        self.send("PUT", f"/invoices/{invoice}", token, {"amount": amount}, name="change", context=context, is_right=right)

    def come_and_go(self, token, more):
        """An admin makes an invoice, with more in the form than he should, and deletes it; a member looks for one that is not there."""
        if not self.is_admin:
            path, right = f"/invoices/{new_id(day.draw, 'inv')}", lambda status, _: status == 404
            self.send("GET", path, token, name="read what is not there", context=about(self.person, "miss", **more), is_right=right)
            return
        other = day.draw.choice(self.world.others(self.person, same_tenant=False))
        extra, more = {"owner": other["sub"], "tenant": other["tenant"], "role": "member"}, {**more, "honest": False}
        if invoice := self.create(self.person, token, new_amount(day.draw), extra, **more):
            right = lambda status, _: status in (200, 204)  # noqa: E731
            self.send("DELETE", f"/invoices/{invoice}", token, name="delete", context=about(self.person, "delete", invoice, **more), is_right=right)


class Visitor(Client):
    """Has a token of a few seconds, and goes on using it."""

    fixed_count = 6
    wait_time = between(0.2, 0.4)

    def on_start(self):
        day.is_ready.wait(30)
        self.person, self.exp = day.draw.choice(plan.people), int(time.time() + SHORT_LIFE_S) + 1
        self.token = day.world.token(day.draw, self.person, claims={"exp": self.exp})
        day.expiry_s = max(day.expiry_s, self.exp)

    @task
    def look(self):
        if day.is_over:
            raise StopUser
        context = about(self.person, "list", exp_in_s=self.exp - time.time())
        self.send("GET", "/invoices", self.token, name="list, soon expired", context=context, is_right=lambda status, _: status in (200, 401))


class Attacker(Client):
    """Fires every attack and its twin, in an order that tells nothing."""

    fixed_count = 2
    wait_time = between(0.02, 0.04)

    @task
    def fire(self):
        day.is_ready.wait(30)
        if not day.shots:
            raise StopUser
        shot = day.shots.popleft()
        request = shot.draw()
        if request.on_new:
            token = day.world.token(day.draw, request.owner)
            invoice = self.create(request.owner, token, new_amount(day.draw), replica=shot.replica)
            if invoice is None:
                return
            request.path, request.context["invoice"] = f"/invoices/{invoice}", invoice
        context = {**request.context, **shot.context}
        name, is_right = (f"twin of {shot.attack}", is_served(context)) if shot.is_twin else (shot.attack, is_refused)
        self.send(request.method, request.path, request.token, request.body, name=name, context=context, is_right=is_right)
        for person in request.lookers:
            self.look_for(request.context["invoice"], person)

    def look_for(self, invoice, person):
        """Who sees an invoice, now that it was attacked? Whether he may, the checks ask."""
        token, context = day.world.token(day.draw, person), about(person, "read", invoice, honest=False)
        self.send("GET", f"/invoices/{invoice}", token, name="look for it", context=context, is_right=lambda status, _: status in (200, 404))
        self.send("GET", "/invoices", token, name="look for it in a list", context=about(person, "list"), is_right=lambda status, _: status == 200)


def is_served(context):
    """What an answer to a twin must be."""
    if context["do"] in ("read", "change"):
        return lambda status, found: status == 200 and is_invoice(found, context["invoice"])
    if context["do"] == "list":
        return lambda status, found: status == 200 and bool(ids_in(found))
    if context["do"] == "create":
        return lambda status, found: status == 201 and is_invoice(found)
    return lambda status, _: status in (200, 204)


def is_refused(status, _):
    return status in (401, 403, 404)


class Flooder(Client):
    """Makes up names of keys, and waits for no answer."""

    fixed_count = 1
    concurrency = 500  # connections: nobody waits for one

    @task
    def flood(self):
        offsets_s = (n / MADE_UP_A_SECOND for n in itertools.count())
        run_arrivals(itertools.takewhile(lambda _: not day.is_over, offsets_s), self.make_one_up)
        raise StopUser

    def make_one_up(self, _, intended_ns):
        person, stranger = day.draw.choice(plan.people), day.world.stranger[0]
        header, sign = {"kid": draw_kid(day.draw)}, lambda _: day.draw.randbytes(256)
        token = day.world.token(day.draw, person, key=stranger, header=header, sign=sign)
        context = about(person, "list", flood=True, intended_ns=intended_ns)
        self.send("GET", "/invoices", token, name="unknown kid", context=context, is_right=is_refused)

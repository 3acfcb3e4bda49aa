"""Shoppers with browsers, watchers of the front page, members with accounts, and attackers: forty-eight users of two edges."""

import itertools
import random
import re
from functools import partial
from hashlib import sha256

from gevent.pool import Group
from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import Barrier, ending, read_plan

PRODUCTS = [str(n) for n in range(100, 112)]
SIZES = [("320", "60"), ("320", "80"), ("1280", "80")]
plan = read_plan(seed=0, run="demo", replicas=2, watchers=8, shoppers=32, members=4, attackers=4, together=1)
draw = random.Random(plan.seed)
numbers, watchers, attacks = itertools.count(), itertools.count(), itertools.count()

HOSTS = ["www.shop.test", "www.shop.test", "www.shop.test", "m.shop.test"]
GZIP = ["gzip", "gzip, deflate", "gzip, deflate, br", "deflate, gzip", "gzip, br", "br, gzip", "gzip;q=1.0, *;q=0.1", "br, deflate, gzip"]
PLAIN = ["identity", "br", "deflate, br", "identity, br;q=0.5"]
LURES = ["", ".css", ".js", ".png", ".jpg", ".svg", ".ico", ".woff2", ".webp"]
gzip_ways, plain_ways = itertools.cycle(GZIP), itertools.cycle(PLAIN)
start, page_is_there = Barrier(plan.together), Barrier(plan.together)


class Visitor(FastHttpUser):
    """Somebody with a browser: a host, a way to ask for encodings, and a cache of its own, which holds ETags."""

    abstract = True
    network_timeout = 10.0

    def on_start(self):
        self.client.client.cookiejar = None
        self.client.client.redirect_response_codes = ()  # followed, a redirect would lead out of the lab
        self.number = next(numbers)
        self.host_name = HOSTS[self.number % 4]
        self.encoding = next(gzip_ways if self.number // 4 % 2 else plain_ways)
        self.had = {}

    def get(self, path, kind, key=(), *, revalidate=False, headers=(), **context):
        """One request; the history learns what it was for and what came back."""
        sent = {"Host": self.host_name, "Accept-Encoding": self.encoding, **dict(headers)}
        had = self.had.get(path) if revalidate else None
        if had:
            context["again"], context["etag"] = True, had["etag"]
            if had["etag"]:
                sent["If-None-Match"] = had["etag"]
        context |= {"kind": kind, "key": [sent["Host"], *key], "accepts": sent["Accept-Encoding"], "address": f"{kind} {path}"}
        with self.client.get(path, name=kind, headers=sent, context=context, catch_response=True) as answer:
            body = answer.content or b""
            context |= {"digest": sha256(body).hexdigest()[:16], "says": body[:80 if kind in ("bundle", "image") else 900].decode(errors="replace")}
            answer.success()
            if answer.status_code == 200:
                self.had[path] = {"etag": answer.headers.get("etag") or "", "digest": context["digest"]}
            elif answer.status_code == 304 and had:
                context["digest"] = had["digest"]  # what its owner now sees
        return context["says"] if answer.status_code == 200 else ""

    def get_all(self, calls):
        """Several at once, as browsers do."""
        group = Group()
        for call in calls:
            group.spawn(call)
        group.join()

    def image(self, revalidate=False):
        width, quality = draw.choice(SIZES)
        name = f"{draw.choice(('hat', 'shoe'))}.webp"
        query = [f"w={width}", f"q={quality}", f"utm_source={draw.randrange(10**6)}"]
        draw.shuffle(query)
        self.get(f"/img/{name}?{'&'.join(query)}", "image", (name, width, quality), revalidate=revalidate)

    def rest(self, seconds):
        ending.wait(seconds)


def bundles_of(page):
    """The paths of the bundles that a page names."""
    return re.findall(r'src="[^"]*?(/assets/[\w.]+)"', page)


class Shopper(Visitor):
    """All come at once; then each looks at products."""

    fixed_count = plan.shoppers

    @task
    def shop(self):
        start.wait()
        first = bundles_of(self.get("/", "page", ("/",)))
        page_is_there.wait()
        self.get_all([partial(self.get, path, "bundle", (path,)) for path in first[:1]])
        self.get_all([*(partial(self.get, path, "bundle", (path,)) for path in first[1:]), *[self.image] * 4])
        while not ending.is_set():
            product = draw.choice(PRODUCTS)
            named = bundles_of(self.get(f"/p/{product}", "page", (f"/{product}",)))
            wanted = draw.sample(named, min(3, len(named)))
            old = draw.sample(first, min(1, len(first)))  # of a page that is open since the beginning
            calls = [partial(self.get, path, "bundle", (path,), revalidate=True) for path in wanted]
            calls += [partial(self.get, path, "bundle", (path,), first=True) for path in old]
            self.get_all([*calls, partial(self.image, revalidate=True)])
            self.rest(0.3)
        raise StopUser


class Watcher(Visitor):
    """Asks one edge for the front page, again and again, and shows the ETag of the one that it has."""

    fixed_count = plan.watchers

    def on_start(self):
        super().on_start()
        n = self.number = next(watchers)
        self.host_name = HOSTS[2:][n % 2]
        self.encoding = (GZIP if n // 2 % 2 else PLAIN)[0]
        self.replica = n // 4 % plan.replicas + 1

    @task
    def watch(self):
        while not ending.is_set():
            self.get("/", "front", ("/",), revalidate=True, replica=self.replica)
            self.rest(0.15)
        raise StopUser


class Member(Visitor):
    """Has an account, and asks for what is its own."""

    fixed_count = plan.members

    @task
    def look(self):
        me = f"{plan.run}-{self.number}"
        while not ending.is_set():
            self.get("/account", "account", headers={"Cookie": f"session={me}"}, me=me)
            self.get("/api/orders", "orders", headers={"Authorization": f"Bearer {me}"}, me=me)
            self.get("/welcome", "welcome")
            self.rest(0.1)
        raise StopUser


class Attacker(Visitor):
    """Asks in a bad way, mostly for what nobody has asked for yet, and then sees what a victim would get at the same edge."""

    fixed_count = plan.attackers

    @task
    def attack(self):
        while not ending.is_set():
            n = next(attacks)
            replica, turn = n % plan.replicas + 1, n // plan.replicas
            evil, name = f"evil-{draw.randrange(10**9)}", f"{plan.run}-{draw.randrange(10**9)}"
            hosts = f"{evil}.test", f"{self.host_name}:{draw.randrange(1024, 65536)}"
            poisons = [{"X-Forwarded-Host": hosts[0]}, {"X-Forwarded-Proto": evil}, {"Host": hosts[0]}, {"Host": hosts[1]}]
            poison = poisons[turn % len(poisons)]
            self.get("/", "attack", ("/",), headers=poison, replica=replica)  # the watchers are its victims
            self.get(f"/p/{name}", "attack", (f"/{name}",), headers=poison, replica=replica)
            self.get(f"/p/{name}", "victim", (f"/{name}",), replica=replica)

            if turn % 2:  # an image with two widths; then with the first of them alone
                self.get(f"/img/{name}.webp?w=320&q=80&w=1280", "attack", replica=replica)
                self.get(f"/img/{name}.webp?w=320&q=80", "image", (f"{name}.webp", "320", "80"), replica=replica)

            # A member follows a link that the attacker has made; then the attacker asks for the same address.
            lure = f"/account/{evil}{LURES[turn % len(LURES)]}"
            self.get(lure, "lure", headers={"Cookie": f"session={evil}"}, me=evil, replica=replica)
            self.get(lure, "thief", replica=replica)
            self.rest(0.15)
        raise StopUser

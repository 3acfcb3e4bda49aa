"""Edge cache: a shop opens, is attacked, releases anew, and loses its origin twice, behind two edges with caches of their own."""

import re
from collections import Counter, defaultdict
from math import inf

import pytest

SHOPPERS, WATCHERS, MEMBERS, ATTACKERS = 32, 8, 4, 4
HOSTS = ("www.shop.test", "m.shop.test")
FETCHES = 8  # of one address on one host: two edges, with and without gzip, is 4
FRESH_WITHIN_S, RECOVERS_WITHIN_S = 5.0, 3.0  # of the contract
OPENING = 400  # bundles: all that the first page of each shopper names are 192
ATTACKS = 24
PUBLIC = ("page", "front", "bundle", "image")
FRONTS = 10  # answers of the front page of each edge in each part of the run


class Shop:
    """The run: its load, what the origin saw, and when things happened."""

    def __init__(self, lab, load):
        self.lab, self.load, self.origin = lab, load, lab.peer("origin")
        self.released_ns = self.down_ns = self.up_ns = 0

    def answers(self, *names, since_ns=0):
        """What the load has recorded of such requests so far, while it runs."""
        return [r for r in self.load.so_far(since_ns) if r.name in names]

    def await_fronts(self, since_ns, at_most_s=12):
        """Wait until each edge has answered so often for the front page, asked after a moment."""

        def is_so():
            seen = Counter(r.replica for r in self.answers("front", since_ns=since_ns))
            return all(seen[n + 1] >= FRONTS for n in range(len(self.lab.replicas)))

        self.load.until(is_so, f"{FRONTS} answers of each edge for the front page", at_most_s=at_most_s)

    def asked(self, *kinds):
        return [r for r in self.load.history if r.context["kind"] in kinds]

    def fetched(self, *kinds):
        """What the origin was asked for and had."""
        return [c for c in self.origin.calls() if c.get("kind") in kinds and c["status"] in (200, 304)]

    def is_in_outage(self, record):
        """Whether the origin was not there, or had come back so lately that an edge may still leave it alone."""
        recovered_ns = self.up_ns + RECOVERS_WITHIN_S * 1e9 if self.up_ns else inf
        return bool(self.down_ns) and record.end_ns > self.down_ns and record.start_ns < recovered_ns

    def known(self, before_ns):
        """What each edge has had in hand before a moment."""
        return {thing_of(r) for r in self.asked(*PUBLIC) if r.status in (200, 304) and r.end_ns < before_ns}

    def new_bundles(self):
        """The paths of the bundles that pages name after the release."""
        pages = {c["digest"] for c in self.fetched("page") if c["release"] == 2}
        named = [r.context["says"] for r in self.asked("page", "front") if r.context.get("digest") in pages]
        return set(re.findall(r"/assets/[\w.]+", "".join(named)))


def thing_of(record):
    """What a request asked for, in its own words: whatever design an edge has, it has had this."""
    return record.replica, record.context["key"][0], record.path, record.context["accepts"]


def takes(record, coding):
    """Whether its asker accepts a coding, by name."""
    return coding in [way.partition(";")[0].strip() for way in record.context["accepts"].split(",")]


@pytest.fixture(scope="module")
def shop(lab):
    """The shop opens to 32 shoppers at once; it is attacked all the time, has a new release, and its origin fails, then is gone."""
    plan = {"run": f"run-{lab.random.randrange(10**6)}", "replicas": len(lab.replicas)}
    plan |= {"shoppers": SHOPPERS, "watchers": WATCHERS, "members": MEMBERS, "attackers": ATTACKERS, "together": SHOPPERS}
    origin = lab.peer("origin")
    with lab.load(users=SHOPPERS + WATCHERS + MEMBERS + ATTACKERS, endless=True, at_most_s=40, plan=plan) as load:
        shop = Shop(lab, load)
        load.until(lambda: len(shop.answers("bundle")) >= OPENING, f"{OPENING} bundles", at_most_s=15)
        load.until(lambda: len(shop.answers("victim", "thief")) >= ATTACKS, f"{ATTACKS} attacks", at_most_s=15)
        shop.await_fronts(load.start_ns)

        origin.set(release=2)
        shop.released_ns = lab.mark("the shop has a new release")
        shop.await_fronts(shop.released_ns + int(FRESH_WITHIN_S * 1e9))

        shop.down_ns = lab.mark("the origin fails: it answers 503")
        origin.set(down=True)  # pages have run out, in whole seconds, before the wait is over
        shop.await_fronts(shop.down_ns + 1_500_000_000)
        cut = lab.wire("origin").cut()
        shop.await_fronts(lab.mark("the origin is gone: it refuses connections"))
        cut.heal()
        origin.set(down=False)
        shop.up_ns = lab.mark("the origin is back")
        shop.await_fronts(shop.up_ns + int((RECOVERS_WITHIN_S + 1) * 1e9))
    return shop


def test_the_contract_holds(shop, lab):
    """At least 95% of the answers are as the contract says, while the origin is there.

    Why: something that the origin needs does not reach it, or what it answers does not reach who asked.
    """
    too_few, new = [], shop.new_bundles()
    for kind in ("page", "front", "bundle", "image", "account", "lure", "orders", "welcome"):
        asked = [r for r in shop.asked(kind) if not shop.is_in_outage(r)]
        if kind == "bundle":  # after the release those of old pages are another matter
            asked = [r for r in asked if r.end_ns < (shop.released_ns or inf) or r.path in new]
        statuses = Counter(f"status {r.status}" for r in asked if r.status not in (200, 304))
        if kind == "welcome":
            statuses["no cookie"] = sum("set-cookie" not in r.headers for r in asked if r.status == 200)
        wrong = sum(statuses.values())
        if len(asked) < FRONTS and wrong <= len(asked) / 2:  # more than half: an edge that hangs is not asked often
            too_few.append(f"only {len(asked)} requests were made for {kind} while the origin was there")
            continue
        lab.at_most(wrong / len(asked), 0.05, f"{wrong} of {len(asked)} answers for {kind}: {statuses.most_common(2)}", f"other answers for {kind}")
    lab.require(not too_few, "; ".join(too_few))


def test_everyone_gets_what_they_asked_for(shop, lab):
    """A page, a bundle or an image is what the origin has at that host, path, width and quality.

    Why: the cache takes two things for one, since its key leaves out what tells them apart.
    """
    truth = defaultdict(set)
    for call in shop.fetched("page", "bundle", "image"):
        truth[key_of(call["kind"], call["key"])].add(call["digest"])
    answered = [r for r in shop.asked(*PUBLIC) if r.status == 200]
    lab.require(len(answered) >= 500, f"only {len(answered)} answers had a body")
    other = Counter(r.context["address"] for r in answered if r.context["digest"] not in truth[key_of(r.name, r.context["key"])])
    worst = f"{other.most_common(1)[0][1]} for {other.most_common(1)[0][0]}" if other else ""
    assert not other, f"{sum(other.values())} of {len(answered)} answers were none of the origin's for this address: {worst}"


def key_of(kind, key):
    """Pages differ by host; bundles and images do not."""
    return tuple(key) if kind in ("page", "front") else tuple(key[1:])


def test_the_origin_is_spared(shop, lab):
    """Both edges together fetch a bundle or an image at most 8 times for a host, and a front page at most 8 times before the first answer.

    Why: many ask for it before the first answer is there, or the key tells apart what is the same.
    """
    lab.require(len(shop.asked("bundle", "image")) >= 500, "too few bundles and images were asked for")
    # They are the same on both hosts, so an edge may fetch them under any name: all but the shop's own count as one.
    fetches = Counter((host if host in HOSTS else "another host", *rest) for host, *rest in (c["key"] for c in shop.fetched("bundle", "image")))
    for host in HOSTS:
        fronts = [c for c in shop.fetched("page") if c["key"] == [host, "/"]]
        there_ns = min((c["end_ns"] for c in fronts), default=0)
        fetches[host, "/", "(before the first answer)"] = sum(c["start_ns"] < there_ns for c in fronts)
    key, times = fetches.most_common(1)[0]
    lab.at_most(times, FETCHES, f"{' '.join(key)} was fetched {times} times", "fetches of one address")


def test_no_personal_answer_reaches_another(shop, lab):
    """Nobody gets an account, orders or a visitor's number that belong to another, nor an account that was kept.

    Why: the edge keeps what the origin has forbidden to keep, or what a request asked for in somebody's name.
    """
    own = shop.asked("account", "orders", "lure")
    thieves = shop.asked("thief")
    lab.require(len(thieves) >= ATTACKS / 2, f"only {len(thieves)} attempts to read another's account")
    for r in own:
        says = r.context.get("says", "").partition("\n")[0]
        assert r.status != 200 or says.endswith(f" of {r.context['me']}"), f"{r.path}: {r.context['me']} was shown the {says[:40]}"
    for r in thieves:
        is_shown = re.search(r"account \d+ of", r.context.get("says", ""))
        assert not is_shown, f"{r.path}: shown to somebody without a session after its owner had been there"
    for what, kinds in {"/account": ("account", "lure"), "/welcome": ("welcome",)}.items():  # each answer has a number
        numbered = Counter(r.context["says"].partition("\n")[0] for r in shop.asked(*kinds) if r.status == 200)
        for says, times in numbered.most_common(1):
            assert times == 1, f"{what}: {times} answers are all the same {says}"


def test_no_poison_reaches_another(shop, lab):
    """What a request makes the origin say by its headers reaches nobody who has not sent them.

    Why: the origin heeds a header that is not in the key.
    """
    victims = [r for r in shop.asked("victim") if r.status == 200]
    lab.require(len(victims) >= ATTACKS / 3, f"only {len(victims)} pages were read after an attacker")
    for r in [*victims, *shop.asked("page", "front")]:
        host = r.context["key"][0]
        for place in re.findall(r'src="(.*?)/assets/', r.context.get("says", "")):
            assert place == f"https://{host}", f"{r.path}: a page for {host} has a script of {place[:60]}"


def test_the_shop_survives_its_origin(shop, lab):
    """While the origin fails or is gone, at least 95% of the pages and bundles that an edge has had before are answered.

    Why: what has run out is given up, although nothing newer is to be had.
    """
    lab.require(shop.down_ns, f"the origin did not fail: {shop.load.missed} did not come")
    known = shop.known(shop.down_ns)
    asked = [r for r in shop.asked(*PUBLIC) if r.start_ns > shop.down_ns and r.end_ns < (shop.up_ns or inf) and thing_of(r) in known]
    for what, kinds in {"pages": ("page", "front"), "bundles": ("bundle",)}.items():
        these = [r for r in asked if r.name in kinds and not r.context.get("first")]  # bundles of before the release are another matter
        lab.require(len(these) >= FRONTS, f"only {len(these)} {what} were asked for while the origin was down")
        lost = Counter(f"status {r.status}" for r in these if r.status not in (200, 304))
        seen = f"{sum(lost.values())} of {len(these)} {what} could not be had: {dict(lost)}"
        lab.at_most(sum(lost.values()) / len(these), 0.05, seen, f"{what} lost")
    lab.require(shop.up_ns, f"the origin's failure was not seen to its end: {shop.load.missed} did not come")


def test_gzip_goes_to_who_accepts_it(shop, lab):
    """Text is compressed for whoever accepts gzip, in at least 95% of the answers, and for nobody else.

    Why: the first one to ask decides for all, or nothing is compressed at all.
    """
    answered = [r for r in shop.asked("page", "front", "bundle") if r.status == 200]
    ready = [r for r in answered if takes(r, "gzip")]
    coded = {r.n: coding for r in answered if (coding := r.headers.get("content-encoding", "identity")) != "identity"}
    other = [r for r in answered if r.n in coded and not takes(r, coded[r.n])]
    lab.require(min(len(ready), len(answered) - len(ready)) >= 100, "too few asked for text with gzip, or without")
    where = f"{other[0].path} for {other[0].context['accepts']!r}" if other else ""
    assert not other, f"{len(other)} answers were compressed for who does not accept it, such as {where}"
    plain = sum(r.n not in coded for r in ready)
    lab.at_most(plain / len(ready), 0.05, f"{plain} of {len(ready)} answers to who accepts gzip were not compressed", "not compressed")


def test_who_has_it_gets_304(shop, lab):
    """Who shows a bundle's ETag gets 304 instead of the bundle, in at least 95% of the answers.

    Why: the answers have no ETag, or edges do not look at it.
    """
    again = [r for r in shop.asked("bundle") if r.context.get("again") and r.status in (200, 304)]
    lab.require(len(again) >= 100, f"only {len(again)} bundles were asked for again")
    full = sum(r.status == 200 for r in again)
    without = sum(not r.context.get("etag") for r in again)
    seen = f"{full} of {len(again)} who had the bundle already got it again ({without} had been given no ETag)"
    lab.at_most(full / len(again), 0.05, seen, "sent again")


def test_a_release_arrives(shop, lab):
    """5 s after a release nobody gets an old page that is asked for all the time, or a 304 for it.

    Why: an edge keeps pages for longer than the origin allows, or does not look at the ETag that it is shown.
    """
    lab.require(shop.released_ns, f"there was no release: {shop.load.missed} did not come")
    old = {c["digest"] for c in shop.fetched("page") if c["release"] == 1}
    asked_ns = defaultdict(list)
    for r in shop.asked("page"):
        asked_ns[thing_of(r)].append(r.start_ns)

    def is_due(record):
        """The front page always is; a product if it was asked for lately: then an edge had reason to ask anew, and has had a second for it."""
        since_ns = shop.released_ns + (FRESH_WITHIN_S - 1.5) * 1e9  # 1.5 s: a page's second of life, and room
        until_ns = min(record.start_ns, shop.down_ns or inf) - 1e9
        return record.name == "front" or any(since_ns < at_ns < until_ns for at_ns in asked_ns[thing_of(record)])

    asked = [r for r in shop.asked("page", "front") if r.start_ns > shop.released_ns and is_due(r)]
    late = {(r.start_ns - shop.released_ns) / 1e9: r.path for r in asked if r.context.get("digest") in old}
    lag_s = max(late, default=0.0)
    if lag_s > FRESH_WITHIN_S:
        lab.require_calm(shop.load)  # a slow machine can only make it longer
    lab.at_most(lag_s, FRESH_WITHIN_S, f"{lag_s:.1f} s after the release the old {late.get(lag_s)} was still served", "s until the release is seen")
    lab.require(shop.down_ns, f"too few front pages after the release: {shop.load.missed} did not come")


def test_old_pages_keep_their_bundles(shop, lab):
    """After a release, a bundle that a page of before names can still be had from each edge that has had it, in at least 95% of the answers.

    Why: the edge asks again for what never changes, and the origin does not have it any more.
    """
    lab.require(shop.released_ns, f"there was no release: {shop.load.missed} did not come")
    known = shop.known(shop.released_ns)
    asked = [r for r in shop.asked("bundle") if r.start_ns > shop.released_ns and r.context.get("first") and thing_of(r) in known]
    lab.require(len(asked) >= 50, f"only {len(asked)} bundles of old pages were asked for")
    lost = Counter(f"status {r.status}" for r in asked if r.status != 200)
    seen = f"{sum(lost.values())} of {len(asked)} bundles of old pages could not be had: {dict(lost)}"
    lab.at_most(sum(lost.values()) / len(asked), 0.05, seen, "old bundles lost")

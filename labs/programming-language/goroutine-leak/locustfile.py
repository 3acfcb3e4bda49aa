"""Ten readers search, twenty leave before they have an answer. A crowd wants words spelled, and a second one, which leaves again."""

import itertools

import gevent
from gevent.pool import Group
from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(
    words=[f"word-{n}" for n in range(200)],
    left=[f"left-{n}" for n in range(40)],
    spelled=["wrod"] * 40,
    given_up=["lsot"] * 20,
    pinned={},
)
READERS, LEAVERS = 10, 20
readers, leavers = itertools.count(), itertools.count()


class Reader(FastHttpUser):
    """Searches for one word after the other."""

    fixed_count = READERS
    network_timeout = 10.0

    @task
    def search(self):
        for word in plan.words[next(readers) :: READERS]:
            self.client.get(f"/search?word={word}", name="/search", context={"word": word, "replica": plan.pinned.get(word)})
        raise StopUser


class Leaver(FastHttpUser):
    """Searches, and leaves: no server will answer."""

    fixed_count = LEAVERS
    network_timeout = 0.3

    @task
    def search(self):
        for word in plan.left[next(leavers) :: LEAVERS]:
            self.client.get(f"/search?word={word}", name="/search (left)", context={"word": word, "left": True})
        raise StopUser


class Speller(FastHttpUser):
    """Many words at once: as many for each replica."""

    abstract = True
    fixed_count = 1
    concurrency = 500  # connections: nobody waits for one

    def spell(self, words, name, **context):
        asked = Group()
        for n, word in enumerate(words):
            asked.spawn(self.client.get, f"/spell?word={word}", name=name, context={"word": word, "replica": n % 2 + 1, **context})
        asked.join()


class Crowd(Speller):
    """Waits for as long as it takes."""

    network_timeout = 30.0

    @task
    def come(self):
        self.spell(plan.spelled, "/spell")
        raise StopUser


class LeavingCrowd(Speller):
    """Comes when all who can be served at once are, and leaves."""

    network_timeout = 1.0

    @task
    def come(self):
        gevent.sleep(0.5)  # when the 256 are on their way: nobody but the speller, which hangs, could tell
        self.spell(plan.given_up, "/spell (left)", left=True)
        raise StopUser

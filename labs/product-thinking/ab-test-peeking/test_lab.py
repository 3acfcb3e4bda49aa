"""A/B tests: what 840 experiments of which the kit knows the truth were called at each look, and who was given which variant."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from math import sqrt

import pytest

USERS = 20
RUNNING, LOGGED, ASSIGNED = 760, 80, 10  # experiments
LAST_LOOK, LAST_LOG_LOOK = 40, 2
CALLED = ("better", "worse")
SILENT_S = 9  # without an answer for so long: the users give up after 10 s

# Each limit comes with the chance that a right design crosses it, from exact binomial tails; the debrief has the table. In all it is below 1e-4.
FALSE_CALLS = 60  # of 600; at a true rate of 5.5% (5%, and what the normal approximation adds) crossed with 4e-6
FALSE_CALLS_UNEVEN = 24  # of 150; at 5.5%, 7e-7
MISSED = 24  # of 60; at a power of 86%, 2e-7
MISSED_IN_LOGS = 6  # of 20; at a power of 97%, 1e-6
LATE = 10  # of 40; at a power of 95% by half time, 3e-6
UNNOTICED = 10  # of 60; at a power of 98%, 3e-8
CALLED_THOUGH_BROKEN = 30  # of 60; at 20%, 5e-8
FALSE_FLAGS = 24  # of 780; at a true rate of 1.1%, 3e-6
FALSE_CALLS_IN_LOGS = 15  # of 60; at a true rate of 7%, 3e-6
SIGMAS = 6  # at most 1e-8 for each of 10 shares and of 45 pairs, 2e-7 for all


@dataclass
class Story:
    """What one experiment was called, look by look."""

    kind: str
    truth: str
    share: float
    verdicts: dict = field(default_factory=dict)  # look -> verdict

    @property
    def call(self):
        """The first look at which it was called better or worse, and which; this is what ships."""
        return min(((look, verdict) for look, verdict in self.verdicts.items() if verdict in CALLED), default=(None, None))


@dataclass
class Year:
    """The load, read as experiments."""

    load: object
    running: dict = field(default_factory=dict)  # experiment -> Story
    logged: dict = field(default_factory=dict)
    assigned: dict = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))  # experiment -> user -> (variant, replica)
    shares: dict = field(default_factory=dict)
    counts: list = field(default_factory=list)  # (log, look, true counts, what was answered)

    def read(self):
        for record in self.load.history.where(lambda r: "said" in r.context):  # those that were right
            context, body = record.context, record.context["said"]
            if "experiments" in context:
                columns = (context[key] for key in ("experiments", "kinds", "truths", "shares"))
                for name, kind, truth, share, verdict in zip(*columns, body["verdicts"], strict=True):
                    self.running.setdefault(name, Story(kind, truth, share)).verdicts[context["look"]] = verdict
            elif "log" in context:
                self.logged.setdefault(context["log"], Story(context["kind"], context["truth"], 0.5)).verdicts[context["look"]] = body["verdict"]
                self.counts.append((context["log"], context["look"], context["counts"], body))
            elif "assigned" in context:
                self.shares[context["assigned"]] = context["share"]
                for user, variant in zip(context["users"], body["variants"], strict=True):
                    self.assigned[context["assigned"]][user].append((variant, record.replica))
        return self

    def of_kind(self, kind):
        return [story for story in (*self.running.values(), *self.logged.values()) if story.kind == kind]

    def treated(self, experiment):
        """The users that were given the treatment when they were first asked for."""
        return {user for user, answers in self.assigned[experiment].items() if answers[0][0] == "treatment"}


@pytest.fixture(scope="module")
def year(lab):
    """Twenty analysts have all experiments judged at all their looks, and ask who gets what."""
    with lab.load(users=USERS, at_most_s=60) as load:
        pass
    return Year(load).read()


def require_sums(year, lab):
    """Nearly every experiment was judged at nearly every look."""
    looks = sum(len(story.verdicts) for story in year.running.values())
    lab.require(looks >= 0.98 * RUNNING * LAST_LOOK, f"only {looks} of {RUNNING * LAST_LOOK} looks were answered")


def require_logs(year, lab):
    lab.require(len(year.counts) >= 0.9 * LOGGED * LAST_LOG_LOOK, f"only {len(year.counts)} of {LOGGED * LAST_LOG_LOOK} looks at logs were answered")


def require_assignments(year, lab):
    lab.require(len(year.assigned) == ASSIGNED, f"only {len(year.assigned)} of {ASSIGNED} experiments were given users")
    fewest = min(map(len, year.assigned.values()))
    lab.require(fewest >= 800, f"only {fewest} of 1,000 users of an experiment were given a variant")


def test_the_contract_holds(year, lab):
    """At least 99% of the requests are answered as the contract says, none takes 10 s, and an experiment that just began is undecided.

    Why: with no user in an arm, or no buyer in both, the usual formula divides by zero.
    """
    asked = year.load.history
    silent = [r for r in asked if r.status is None and r.latency_s > SILENT_S]
    if silent or year.load.is_cut_short:
        lab.require_calm(year.load)
    assert not silent, f"{len(silent)} of {len(asked)} requests got no answer within 10 s"
    wrong = [r for r in asked if r.outcome != "ok"]
    kinds = Counter(f"{r.name}: {r.failed}" for r in wrong).most_common(3)
    seen = f"{len(wrong)} of {len(asked)} answers were not as the contract says: {kinds}"
    lab.at_most(len(wrong) / max(len(asked), 1), 0.01, seen, "wrong answers")
    newborn = asked.where(lambda r: "newborn" in r.context and r.status is not None)
    bad = [f"{r.context['newborn']}: status {r.status}, {r.body}" for r in newborn if r.outcome != "ok"]
    assert not bad, f"{len(bad)} of {len(newborn)} experiments that just began were not called undecided: {bad[0]}"
    lab.require(not year.load.is_cut_short, "the load did not come to its end within 60 s")
    lab.require(len(newborn) >= 6, f"only {len(newborn)} of 8 experiments that just began were answered")


def test_placebos_are_not_called(year, lab):
    """Of 600 experiments without any effect at most 60 are called better or worse, at any of their 40 looks; of 150 that treat a tenth at most 24.

    Why: a test that is wrong in 5% of the cases when it is made once is wrong far more often when it is made at every look, until it says yes;
    and the error of a small arm is larger than that of half of the users.
    """
    require_sums(year, lab)
    placebos = year.of_kind("placebo")
    called = [story.call[0] for story in placebos if story.call[0]]
    seen = f"{len(called)} of {len(placebos)} experiments without an effect were called better or worse, {called.count(1)} of them at the first look"
    lab.at_most(len(called), FALSE_CALLS, seen, "placebos called")
    uneven = [story for story in placebos if story.share < 0.5]
    called = sum(story.call[0] is not None for story in uneven)
    seen = f"{called} of {len(uneven)} experiments without an effect that treat a tenth of the users were called better or worse"
    lab.at_most(called, FALSE_CALLS_UNEVEN, seen, "uneven placebos called")


def test_effects_are_found(year, lab):
    """Of 60 experiments with an effect at most 24 are not called, and rightly, by their last look; of 20 logs with one at most 6.

    Why: whoever guards too much against false calls makes no true ones.
    """
    require_sums(year, lab)
    require_logs(year, lab)
    for kind, most, what in (("effect", MISSED, "effects"), ("button", MISSED_IN_LOGS, "effects in logs")):
        stories = year.of_kind(kind)
        missed = sum(story.call[0] is None for story in stories)
        wrong = sum(story.call[1] not in (None, story.truth) for story in stories)
        seen = f"{missed} of {len(stories)} {what} were never called, {wrong} were called the wrong way round"
        lab.at_most(missed + wrong, most, seen, f"{what} missed")


def test_large_effects_are_called_early(year, lab):
    """Of 40 experiments with a large effect at most 10 are not called, and rightly, by half of their looks.

    Why: nothing is called before the end, while half of the users get the worse variant.
    """
    require_sums(year, lab)
    stories = year.of_kind("big")
    early = sum(story.call[1] == story.truth and story.call[0] <= LAST_LOOK / 2 for story in stories)
    seen = f"{early} of {len(stories)} large effects were called by look {LAST_LOOK // 2}"
    lab.at_most(len(stories) - early, LATE, seen, "large effects not called early")


def test_broken_experiments_are_found(year, lab):
    """Of 60 experiments that lose users of one arm at most 10 are not called broken at their last look, and at most 30 were called better or worse.

    Why: nobody compares the numbers of users with the plan (a sample ratio mismatch), or only when a winner has shipped, and who is missing is not
    like who is there.
    """
    require_sums(year, lab)
    stories = [story for story in year.of_kind("broken") if LAST_LOOK in story.verdicts]
    found = sum(story.verdicts[LAST_LOOK] == "broken" for story in stories)
    called = sum(story.call[0] is not None for story in stories)
    seen = f"{found} of {len(stories)} experiments that lose users were called broken, {called} better or worse"
    lab.at_most(len(stories) - found, UNNOTICED, seen, "broken ones not noticed")
    lab.at_most(called, CALLED_THOUGH_BROKEN, seen, "broken ones called better or worse")


def test_sound_experiments_are_not_broken(year, lab):
    """Of 780 experiments that lose nobody at most 24 are called broken, at any of their looks.

    Why: the numbers of users are tested at every look as well, or against another split than the planned one.
    """
    require_sums(year, lab)
    require_logs(year, lab)
    sound = [story for story in (*year.running.values(), *year.logged.values()) if story.kind != "broken"]
    flagged = sum("broken" in story.verdicts.values() for story in sound)
    lab.at_most(flagged, FALSE_FLAGS, f"{flagged} of {len(sound)} experiments that lose nobody were called broken", "sound ones called broken")


def test_a_user_keeps_the_variant(year, lab):
    """Whoever asks again gets the same variant, whichever replica answers.

    Why: the variant is drawn anew, or comes from something that each replica has of its own.
    """
    require_assignments(year, lab)
    answers = [found for users in year.assigned.values() for found in users.values()]
    both = sum(len({replica for _, replica in found}) > 1 for found in answers)
    lab.require(both >= 1000, f"only {both} users were asked for at both replicas")
    moved = sum(len({variant for variant, _ in found}) > 1 for found in answers)
    assert not moved, f"{moved} of {len(answers)} users got another variant when they were asked for again"


def test_the_planned_share_is_treated(year, lab):
    """The treatment gets the planned share of 1,000 users, to within 6 standard errors.

    Why: everything is split in half, whatever the plan says.
    """
    require_assignments(year, lab)
    worst = max(year.assigned, key=lambda name: abs(share_error(year, name)))
    treated, users, share = len(year.treated(worst)), len(year.assigned[worst]), year.shares[worst]
    seen = f"{worst}: {treated} of {users} users got the treatment, planned was {share:.0%}"
    lab.at_most(abs(share_error(year, worst)), SIGMAS, seen, "standard errors from the planned share")


def share_error(year, experiment):
    """How far the number of treated users is from the plan, in standard errors."""
    n, share = len(year.assigned[experiment]), year.shares[experiment]
    return (len(year.treated(experiment)) - n * share) / sqrt(n * share * (1 - share))


def test_experiments_cut_the_users_independently(year, lab):
    """Who is treated in one experiment is neither more nor less likely treated in another, to within 6 standard errors.

    Why: users are cut by something that is the same in all experiments, so that the effect of one is found in all.
    """
    require_assignments(year, lab)
    one, other = max(combinations(year.assigned, 2), key=lambda pair: abs(overlap_error(year, *pair)))
    both = len(year.treated(one) & year.treated(other))
    seen = f"{both} users were treated in both {one} ({len(year.treated(one))} users) and {other} ({len(year.treated(other))})"
    lab.at_most(abs(overlap_error(year, one, other)), SIGMAS, seen, "standard errors from independence")


def overlap_error(year, one, other):
    """How far the number of users treated in both is from what chance would give, in standard errors of the hypergeometric distribution."""
    everybody = set(year.assigned[one]) & set(year.assigned[other])
    a, b = year.treated(one) & everybody, year.treated(other) & everybody
    n = len(everybody)
    variance = len(a) * len(b) * (n - len(a)) * (n - len(b)) / n**2 / max(n - 1, 1)
    return (len(a & b) - len(a) * len(b) / n) / sqrt(variance) if variance else 0.0


def test_users_are_counted_not_events(year, lab):
    """Of 60 logs without any effect at most 15 are called better or worse.

    Why: a regular's fifty views are taken for fifty observations, but they say little more than one of them.
    """
    require_logs(year, lab)
    stories = year.of_kind("habit")
    called = sum(story.call[0] is not None for story in stories)
    lab.at_most(called, FALSE_CALLS_IN_LOGS, f"{called} of {len(stories)} logs without an effect were called better or worse", "logs called")


def test_an_event_counts_once(year, lab):
    """The users, views and clicks of a log are counted exactly, though some events come twice, and some of those a look later.

    Why: an event that was delivered again counts again, and one variant's client delivers more of them again.
    """
    require_logs(year, lab)
    for log, look, truth, answer in year.counts:
        for arm, counts in truth.items():
            seen = {what: answer[arm][what] for what in counts}
            assert seen == counts, f"{log}, look {look}: the {arm} had {counts}, counted were {seen}"

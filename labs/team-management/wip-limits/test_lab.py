"""WIP limits: five teams live the same year twice, once by the app's plans and once by the baseline's, which gives all to the best at once."""

from collections import Counter
from dataclasses import dataclass
from math import ceil, inf
from statistics import mean

import pytest

from runner.world import read_worlds

TEAMS = 5
DAYS = 220
OF_THE_BASELINE = 0.3  # of its 85th percentile
OPEN_OF_THE_BASELINE = 0.15  # of its open tickets at the end
CAPABLE, PEOPLE = 0.5, 2
UNFINISHED, LAST_DAYS = 0.15, 20
OLDEST = 60
TOLERANCE = 0.03
REPORT_ON = (20, 90)  # the mornings of which one is drawn
SILENT_S = 9  # without an answer for so long: the leads give up after 10 s
DAY, REPORT = "/teams/[team]/days/[day]", "/teams/[team]/report"


@dataclass
class Year:
    """The run: its load, what the board saw of each day, and the worlds as they ended."""

    load: object
    calls: list
    worlds: dict

    @property
    def days(self):
        return self.load.history.where(name=DAY)

    def require_an_end(self, lab):
        open_years = [f"{name} is at day {world.tick}" for name, world in self.worlds.items() if not world.is_over]
        lab.require(len(self.worlds) == TEAMS and not open_years, f"not all years came to their end: {', '.join(open_years) or 'none was begun'}")


@pytest.fixture(scope="module")
def year(lab):
    """Five leads have each day of a year planned, for a team each; nothing is done in a hurry, since days pass by decision and not by the clock."""
    run = f"{lab.random.choice(('north', 'south', 'east', 'west'))}-{lab.random.randrange(10**5)}"
    board = lab.peer("board")
    with lab.load(users=TEAMS, at_most_s=90, plan={"run": run, "days": DAYS, "report_on": lab.random.randint(*REPORT_ON)}) as load:
        pass
    worlds = {name: world for name, world in read_worlds(board).items() if name.startswith(f"{run}-")}
    return Year(load, board.calls(), worlds)


def lead_time(ticket):
    """Days from its arrival to its end, both counted; so far, for one that is not done."""
    end = DAYS - 1 if ticket["done"] is None else ticket["done"]
    return end - ticket["arrived"] + 1


def p85(log):
    """The 85th percentile (nearest rank) of all lead times, of open tickets too."""
    times = sorted(map(lead_time, log["tickets"]))
    return times[ceil(0.85 * len(times)) - 1]


def still_open(log):
    return [t for t in log["tickets"] if t["done"] is None]


def second_best(log):
    """{skill: level of the second best at it}, on the evening on which somebody left."""
    levels = list(log["levels"].values())
    return {skill: sorted((of[skill] for of in levels), reverse=True)[PEOPLE - 1] for skill in levels[0]}


def asked_of_the_leaver(log):
    """The tickets that came after somebody had left, in the skill that this person was good at, early enough to be done."""
    return [t for t in log["tickets"] if t["skill"] == log["skill"] and log["left"] < t["arrived"] < DAYS - LAST_DAYS]


def true_report(log, days):
    """What the report has to say after so many days; of lead times only when there are some."""
    done = [t for t in log["tickets"] if t["done"] is not None and t["done"] < days]
    open_days = [min(lead_time(t), days - t["arrived"]) for t in log["tickets"] if t["arrived"] < days]
    lead_times = {"lead_time": mean(map(lead_time, done))} if done else {}
    return {"throughput": len(done) / days, "wip": sum(open_days) / days, **lead_times}


def error_of(reported, true):
    """Relative; infinite for what is no number, or none that a float can hold."""
    if not isinstance(reported, int | float) or not abs(reported) < 1e300:
        return inf
    return abs(reported - true) / true if true else inf if reported else 0.0


def test_the_contract_holds(year, lab):
    """At least 95% of days are answered with 200 when they have been worked, none is worked before it is asked for or takes 10 s, and all years end.

    Why: the answer does not wait for the board, a plan is made of something else than today's board, or days are worked in advance.
    """
    asked = year.days
    silent = [r for r in asked if r.status is None and r.latency_s > SILENT_S]
    if silent or year.load.is_cut_short:
        lab.require_calm(year.load)
    assert not silent, f"{len(silent)} of {len(asked)} days got no answer within 10 s"
    wrong = [r for r in asked if r.status != 200]
    kinds = Counter(f"status {r.status}" for r in wrong).most_common(3)
    refused = next((f"; the board refused: {c['refused']}" for c in year.calls if c.get("refused")), "")
    lab.at_most(len(wrong) / max(len(asked), 1), 0.05, f"{len(wrong)} of {len(asked)} answers were not 200: {kinds}{refused}", "other answers")
    plans = [c for c in year.calls if c["method"] == "PUT" and c["status"] == 200]
    worked = {(c["world"], c["tick"]): c["end_ns"] for c in plans}
    early = [r for r in asked if r.status == 200 and worked.get((r.context["team"], r.context["day"]), inf) > r.end_ns]
    seen = f", such as day {early[0].context['day']} of {early[0].context['team']}" if early else ""
    assert not early, f"{len(early)} of {len(asked)} days were not worked when they were answered with 200{seen}"
    first_asked = {(r.context["team"], r.context["day"]): r.start_ns for r in reversed(asked.records)}
    ahead = [c for c in plans if c["world"] in year.worlds and c["start_ns"] < first_asked.get((c["world"], c["tick"]), inf)]
    seen = f", such as day {ahead[0]['tick']} of {ahead[0]['world']}" if ahead else ""
    assert not ahead, f"{len(ahead)} of {len(plans)} days were worked before they were asked for{seen}"
    assert not year.load.is_cut_short, "the teams' years did not come to their end within 90 s"
    open_years = [f"{name} stands at day {world.tick}" for name, world in year.worlds.items() if not world.is_over]
    assert year.worlds, "no team's year was begun"
    assert not open_years, f"of {TEAMS} years {len(open_years)} did not come to their end: {open_years[0]}"


def test_tickets_do_not_wait_for_months(year, lab):
    """In each team, 85% of all tickets are done within 0.3 of the days that they take when each goes at once to the best person.

    Why: people have many tickets in their hands at once, each switch costs them a part of the day, and nothing is ever finished.
    """
    year.require_an_end(lab)
    times = {name: (p85(world.log), p85(world.baseline)) for name, world in year.worlds.items()}
    name, (mine, base) = max(times.items(), key=lambda item: item[1][0] / item[1][1])
    seen = f"{name}: 85% of the tickets took up to {mine} days, and up to {base} under the baseline"
    lab.at_most(mine / base, OF_THE_BASELINE, seen, "of the baseline's p85")


def test_the_teams_keep_up(year, lab):
    """At the end of the year the teams have at most 0.15 of the open tickets that they have when each goes at once to the best person.

    Why: people work on too many tickets to finish any, or on so few that most of the team stands idle.
    """
    year.require_an_end(lab)
    mine = sum(len(still_open(world.log)) for world in year.worlds.values())
    base = sum(len(still_open(world.baseline)) for world in year.worlds.values())
    came = sum(len(world.log["tickets"]) for world in year.worlds.values())
    lab.require(base >= TEAMS * 10, f"the baseline finished nearly all: {base} of {came} tickets are open")
    lab.at_most(mine / base, OPEN_OF_THE_BASELINE, f"{mine} of {came} tickets are open, {base} under the baseline", "of the baseline's open tickets")


def test_two_people_can_do_each_kind_of_work(year, lab):
    """On the day on which somebody leaves, each skill of each team has at least 2 people with a level of 0.5 or more.

    Why: each ticket goes to the one who knows most, so nobody else ever learns.
    """
    year.require_an_end(lab)
    levels = {(name, skill): level for name, world in year.worlds.items() for skill, level in second_best(world.log).items()}
    (name, skill), worst = min(levels.items(), key=lambda item: item[1])
    few = sum(level < CAPABLE for level in levels.values())
    seen = f"{few} of {len(levels)} skills had only one: the second best at {skill} in {name} had a level of {worst:.2f}"
    lab.at_least(worst, CAPABLE, seen, "level of a second person")


def test_work_goes_on_when_somebody_leaves(year, lab):
    """Of the tickets that come after somebody has left, in the skill that this person was good at, at most 15% are open at the end of the year.

    Why: that work has to pass through one person, who is not there any more.
    """
    year.require_an_end(lab)
    due = [t for world in year.worlds.values() for t in asked_of_the_leaver(world.log)]
    lab.require(len(due) >= 30, f"only {len(due)} tickets came after somebody had left")
    left = sum(t["done"] is None for t in due)
    lab.at_most(left / len(due), UNFINISHED, f"{left} of {len(due)} such tickets are still open", "of them open")


def test_no_ticket_is_forgotten(year, lab):
    """No ticket of any team is ever open for more than 60 days.

    Why: some tickets always come after others, or nobody feels that they are theirs.
    """
    year.require_an_end(lab)
    name, oldest = max(((name, t) for name, world in year.worlds.items() for t in world.log["tickets"]), key=lambda item: lead_time(item[1]))
    begun = "was never begun" if oldest["started"] is None else f"was begun on day {oldest['started']}"
    state = "is still open" if oldest["done"] is None else "was then done"
    seen = f"{name}: {oldest['id']} ({oldest['skill']}) came on day {oldest['arrived']}, {begun}, and {state}"
    lab.at_most(lead_time(oldest), OLDEST, f"{seen} after {lead_time(oldest)} days", "days that a ticket was open")


def test_the_report_has_the_customers_clock(year, lab):
    """GET /teams/{team}/report gives throughput, lead time and work in progress as the board's dates have them, to 3%, during the year too.

    Why: the clock starts when somebody begins, so what waits is in no number; or the numbers are of one replica alone, or of other days.
    """
    year.require_an_end(lab)
    reports = year.load.history.where(name=REPORT)
    lab.require(len(reports) >= 4 * TEAMS, f"only {len(reports)} reports were asked for")
    errors = []
    for r in reports:
        body = r.body if r.status == 200 and isinstance(r.body, dict) else {}
        team, days = r.context["team"], r.context["day"]
        for what, value in true_report(year.worlds[team].log, days).items():
            seen = f"{team} after {days} days: {what} is reported as {body.get(what)}, and was {value:.4g} (status {r.status})"
            errors.append((error_of(body.get(what), value), seen))
    worst, seen = max(errors)
    lab.at_most(worst, TOLERANCE, seen, "error of a reported number")

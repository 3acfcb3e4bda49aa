"""The board of some teams, and their year: tickets come by chance, people learn by what they do, and one of them resigns."""

from runner.peer import Peer
from runner.world import Refused, Worlds, draw

DAYS = 220  # of work, in a year
DAY_FOR = (1.0, 1.0, 0.8, 0.6, 0.4, 0.25)  # what 0, 1, 2, ... tickets in hand leave of a day; more than five as five
LEARNING = 0.06  # of what is missing to 1, in a day of work at it
REVIEW_LEARNING = 0.01
REVIEW = 0.25  # of a ticket's size
AT_ONCE = 2  # people at one ticket
SIZES = {2: 0.4, 3: 0.35, 5: 0.25}  # days of somebody at level 1, and how often
TICKETS_A_DAY = (0.66, 0.74)
BACKLOG = 12  # tickets that wait on the first day
SHARES = (0.4, 0.2, 0.2, 0.2)  # of the tickets, by skill
OWN, OTHERS, NEWCOMER = (0.9, 1.0), (0.15, 0.3), (0.2, 0.35)  # levels on the first day
RESIGNS, NOTICE = (100, 115), 20  # the first day on which it can happen, and within how many it does
PEOPLE = ["ana", "bo", "chen", "dara", "eli", "fay", "gus", "hana", "ivo", "jun", "kim", "lin", "mara", "nils", "oda", "pia"]
SKILLS = ["payments", "search", "billing", "mobile", "reports", "shipping", "identity", "pricing"]
SHOWN = ("id", "skill", "size", "arrived", "started", "stage", "remaining", "workers")
KEPT = ("id", "skill", "size", "arrived", "started", "done")


class Team:
    """A team's year: six people, four skills, each of them known to one person."""

    def __init__(self, seed, name):
        self.name, self.tick, self.is_over = name, 0, False
        chance = draw(seed, name, "people")
        self.skills = chance.sample(SKILLS, len(SHARES))
        names = chance.sample(PEOPLE, 6)
        experts = dict(zip(names, self.skills, strict=False))
        self.levels = {person: {s: chance.uniform(*first_level(s, experts.get(person))) for s in sorted(self.skills)} for person in sorted(names)}
        self.leaver, self.left, self.resigns = chance.choice(list(experts)), set(), chance.randint(*RESIGNS)
        self.tickets = {t["id"]: t for t in draw_tickets(draw(seed, name, "tickets"), self.skills)}
        # The one thing not drawn ahead is the day on which the leaver goes: with a ticket begun, if there is one soon.
        self.log = {"tickets": list(self.tickets.values()), "skill": experts[self.leaver], "leaver": self.leaver, "left": None, "levels": {}}

    def open(self):
        return [t for t in self.tickets.values() if t["arrived"] <= self.tick and t["done"] is None]

    def observe(self):
        people = [{"name": name, "left": name in self.left, "levels": round_levels(levels)} for name, levels in self.levels.items()]
        return {"team": self.name, "day": self.tick, "people": people, "tickets": [{key: t[key] for key in SHOWN} for t in self.open()]}

    def step(self, decision):
        plan = read_plan(decision, self.levels, {t["id"]: t for t in self.open()})
        here = {person: ids for person, ids in plan.items() if person not in self.left}  # who has left keeps an account, and does nothing
        touched = [(ticket, [person for person, ids in here.items() if ticket["id"] in ids]) for ticket in self.open()]
        for ticket, hands in touched:
            if hands and ticket["stage"] == "work":
                ticket["workers"] = hands
        shares = {person: self.share(person, ids) for person, ids in here.items() if ids}
        for ticket, hands in touched:
            for person in hands:
                self.work(person, ticket, shares[person])
        for ticket in self.open():
            if ticket["remaining"] <= 1e-9:
                self.pass_on(ticket)
        if not self.left and self.tick >= self.resigns and (self.has_begun(self.leaver) or self.tick >= self.resigns + NOTICE):
            self.left.add(self.leaver)
            self.log["left"], self.log["levels"] = self.tick, {person: dict(levels) for person, levels in self.levels.items()}
        self.tick += 1
        self.is_over = self.tick == DAYS

    def share(self, person, ids):
        """What each of today's tickets gets of a person's day. What they were the last to work on, and did not work to its end, is in hand too."""
        begun = {t["id"] for t in self.open() if t["stage"] == "work" and person in t["workers"]}
        return DAY_FOR[min(len(begun.union(ids)), 5)] / len(ids)

    def work(self, person, ticket, share):
        """A person spends a share of the day on a ticket, and learns."""
        levels, skill = self.levels[person], ticket["skill"]
        is_review = ticket["stage"] == "review"
        if ticket["started"] is None:
            ticket["started"] = self.tick
        ticket["remaining"] -= share * (1.0 if is_review else levels[skill])
        levels[skill] += share * (REVIEW_LEARNING if is_review else LEARNING) * (1 - levels[skill])

    def pass_on(self, ticket):
        """Its work is done: now the review, or it is over."""
        if ticket["stage"] == "work":
            ticket.update(stage="review", remaining=REVIEW * ticket["size"])
        else:
            ticket.update(stage="done", remaining=0.0, done=self.tick)

    def has_begun(self, person):
        return any(t["stage"] == "work" and t["workers"] == [person] for t in self.open())


def first_level(skill, own):
    return NEWCOMER if own is None else OWN if skill == own else OTHERS


def draw_tickets(chance, skills):
    a_day = chance.uniform(*TICKETS_A_DAY)
    days = [0] * BACKLOG + [day for day in range(1, DAYS) for _ in range(3) if chance.random() < a_day / 3]
    for number, day in enumerate(days, 1):
        skill, size = chance.choices(skills, SHARES)[0], chance.choices(list(SIZES), SIZES.values())[0]
        dates = {"arrived": day, "started": None, "done": None}
        yield {"id": f"T-{number}", "skill": skill, "size": size, **dates, "stage": "work", "remaining": float(size), "workers": []}


def round_levels(levels):
    return {skill: round(level, 3) for skill, level in levels.items()}


def read_plan(decision, people, tickets):
    """A day's plan, which the rules allow: for each person the ids of their tickets. Raises Refused."""
    if not isinstance(decision, dict):
        raise Refused("a plan is an object: the ids of the day's tickets for each person")
    count = dict.fromkeys(tickets, 0)
    for person, ids in decision.items():
        if person not in people:
            raise Refused(f"nobody here is called {person}")
        if not isinstance(ids, list) or len({str(i) for i in ids}) < len(ids):
            raise Refused(f"{person} needs a list of ids, each of them once")
        for i in ids:
            if not isinstance(i, str) or i not in tickets:
                raise Refused(f"{person}: {i} is no open ticket")
            count[i] += 1
            if count[i] > AT_ONCE:
                raise Refused(f"{i} is given to more than {AT_ONCE} people")
            if tickets[i]["stage"] == "review" and person in tickets[i]["workers"]:
                raise Refused(f"{person} has finished {i}, and cannot review it")
    return decision


def push(board):
    """The baseline: a ticket goes at once to whoever is best at it and still here, and everybody works on everything that they have."""
    levels = {p["name"]: p["levels"] for p in board["people"] if not p["left"]}
    plan = {person: [] for person in levels}
    for ticket in board["tickets"]:
        may = [person for person in levels if ticket["stage"] == "work" or person not in ticket["workers"]]
        plan[max(may, key=lambda person: levels[person][ticket["skill"]])].append(ticket["id"])
    return plan


if __name__ == "__main__":
    peer = Peer()
    worlds = Worlds(lambda name: Team(peer.seed, name), baseline=push)
    worlds.serve(peer, "teams", ticks="days")

    @peer.route("GET", "/teams/{team}/tickets")
    async def read_tickets(request, call):
        team = worlds.find(request.path_params["team"])
        return {"day": team.tick, "tickets": [{key: t[key] for key in KEPT} for t in team.tickets.values() if t["arrived"] <= team.tick]}

    peer.run()

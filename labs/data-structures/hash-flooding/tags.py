"""Lists of tags, as gates report them and as the laptop makes them up, each with the answer that is right."""

from heapq import nsmallest
from itertools import zip_longest

TOP = 10
LOW, BITS = 10**27, 92  # nearly every tag has 28 digits: the laptop's cannot be told by their length
HIGH = 2**96 - 2**68  # not far below the largest tag that there is
MODULUS = 2**61 - 1  # what Python's hash of a whole number is the remainder by: those with the same remainder collide


def draw_tag(draw):
    return LOW + draw.getrandbits(BITS)


def draw_ordinary(draw, n):
    return [draw_tag(draw) * (1 - 2 * draw.getrandbits(1)) for _ in range(n)]


def draw_ascending(draw, n):
    """Tags from one roll: each is one more than the one before it."""
    first = draw_tag(draw)
    return list(range(first, first + n))


def draw_rolls(draw, n):
    """Tags from two rolls by turns: one is read from its beginning, the other from its end."""
    up, down = draw_tag(draw), draw_tag(draw)
    return [down - place // 2 if place % 2 else up + place // 2 for place in range(n)]


def draw_same(draw, n):
    return [draw_tag(draw)]


def draw_multiples(draw, n):
    """Whole multiples, k of them for different k."""
    return [k * MODULUS for k in draw.sample(range(LOW // MODULUS + 1, (LOW + 2**BITS) // MODULUS), n)]


def draw_without_remainder(draw, n):
    return [tag * (1 - 2 * draw.getrandbits(1)) for tag in draw_multiples(draw, n)]


def draw_with_remainder(draw, n):
    remainder = draw.randrange(1, MODULUS)
    return [tag + remainder for tag in draw_multiples(draw, n)]


def draw_negative(draw, n):
    return [-tag for tag in draw_with_remainder(draw, n)]


def draw_minority(draw, n):
    """35% share a remainder, too few to stand out. The others share the last 64 bits, which are all that some hashes take in: not Python's."""
    few, end = n * 35 // 100, draw.getrandbits(64)
    others = draw.sample(range(LOW // 2**64 + 1, (LOW + 2**BITS) // 2**64), n - few)
    return draw_with_remainder(draw, few) + [k * 2**64 + end for k in others]


KINDS = {
    "ordinary": draw_ordinary,
    "ascending": draw_ascending,
    "rolls": draw_rolls,
    "same": draw_same,
    "laptop-1": draw_without_remainder,
    "laptop-2": draw_with_remainder,
    "laptop-3": draw_negative,
    "laptop-4": draw_minority,
}


def draw_relatives(draw, groups):
    """Tags that are easily taken for each other: by a float, by 64 bits, by the last digits, or without the sign; some small, some of 96 bits."""
    firsts = [draw.choice((0, draw_tag(draw), HIGH)) + more for more in draw.sample(range(2, 20_000, 2), groups)]
    return [tag for first in firsts for tag in (first, -first, first + 1, first + 2**64, first + 10**20)]


def draw_list(draw, kind, size):
    """What is read (`size` tags of which some come several times), and what must be answered.

    How often each tag comes is known from the beginning: to count them here would be the incident itself.
    """
    again = [draw.randint(1, 7) for _ in range(size // 100)]
    relatives = draw_relatives(draw, size // 200)
    tags = KINDS[kind](draw, size - sum(again) - len(relatives)) + relatives
    times = [1] * len(tags)
    for place, more in zip(draw.sample(range(len(tags)), len(again)), again, strict=True):
        times[place] += more
    times[0] += size - sum(times)  # the kind `same` has one tag only, which comes again and again
    reads = [tag for tag, n in zip(tags, times, strict=True) for _ in range(n)]
    if kind == "ascending":
        reads.sort()
    elif kind != "rolls":
        draw.shuffle(reads)
    return reads, answer_for(list(zip(tags, times, strict=True)))


def answer_for(counted):
    """The right answer for these tags, each with how often it was read."""
    top = nsmallest(TOP, counted, key=lambda pair: (-pair[1], pair[0]))
    return {"reads": sum(times for _, times in counted), "distinct": len(counted), "top": [list(pair) for pair in top]}


def find_mistake(answer, right):
    """What is wrong with an answer, in words; "" for a right one. Texts are compared, since to Python 917.0 equals 917, and true 1."""
    if not isinstance(answer, dict):
        return "the answer is no JSON object"
    for key in ("reads", "distinct"):
        if repr(answer.get(key)) != repr(right[key]):
            return f"`{key}` is {answer.get(key)!r:.60}, and should be {right[key]}"
    if not isinstance(answer.get("top"), list):
        return f"`top` is {answer.get('top')!r:.60}, and should be a list"
    for place, (given, due) in enumerate(zip_longest(answer["top"], right["top"], fillvalue="left out"), 1):
        if repr(given) != repr(due):
            return f"place {place} of `top` is {given!r:.80}, and should be {due}"
    return ""

"""Unsure: one check can judge, one never can."""


def test_the_answer_is_right(lab):
    """The answer is 42.

    Why: it is not 42.
    """
    answer = lab.call("GET", "/answer").json()["answer"]
    assert answer == 42, f"the answer was {answer}"


def test_the_storm_is_survived(lab):
    """A storm does no harm.

    Why: it does harm.
    """
    lab.require(False, "no storm came")

"""Bench: driven by the kit's own tests, which ask its parts one by one."""


def test_it_serves(lab):
    """Every replica serves.

    Why: one does not.
    """
    assert all(lab.call("GET", "/", replica=n).status == 200 for n in (1, 2)), "a replica does not"

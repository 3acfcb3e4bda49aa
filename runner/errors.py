"""The errors whose type says who is to blame: the author of a lab, the machine, or the app under test."""

BUSY_HINT = "its log may say why; is this machine out of memory, or too busy? `make doctor` looks at it"


class LabsError(Exception):
    """Something a person can act on: the message says what was seen, `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class LabError(LabsError):
    """The lab is broken, or was asked for wrongly (verdict ERROR)."""


class MachineError(LabsError):
    """The machine or the kit's set-up is in the way: a port, a disk, a download (verdict ERROR)."""


class AppError(LabsError):
    """The app under test did not start, died, or kept a server from serving the kit (verdict FAIL, told apart from a failed check)."""


class Inconclusive(LabsError):
    """The run did not show what a check needs to judge (verdict INCONCLUSIVE)."""

"""How a command ends: exit codes, and the one exception that carries one."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `paymesh` command. 70 is a fault of ours."""

    OK = 0
    CHECK_FAILED = 1
    REFUSED = 2
    BAD_INPUT = 3
    NOT_FOUND = 4
    UNAUTHENTICATED = 5
    UNAVAILABLE = 6
    BUG = 70


class CommandError(Exception):
    """What a command tells the user instead of its result: a sentence for each fault, and an exit code."""

    def __init__(self, code: Exit, *faults: str) -> None:
        """End with ``code`` because of ``faults``."""
        self.code, self.faults = code, faults
        super().__init__("\n".join(faults))

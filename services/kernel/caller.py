"""Who asks, until when: the context of a command, which travels in it and not in the thread."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a command: ``subject`` is the user's id (0: a service of the mesh), ``deadline`` monotonic seconds."""

    subject: int
    scopes: frozenset[str]
    session_id: str
    deadline: float
    request_id: str = ""
    traceparent: str = ""
    client_ip: str = ""

    def owns_or(self, scope: str) -> int | None:
        """Return the subject that a query must be narrowed to; None when ``scope`` lifts the narrowing."""
        return None if scope and scope in self.scopes else self.subject

    def unnamed(self) -> Caller:
        """Return the same call without whose it is: its deadline and trace, for a call that speaks for a batch."""
        return replace(self, subject=0, scopes=frozenset(), session_id="", client_ip="")


NOBODY = Caller(0, frozenset(), "", 0.0)
"""Before anybody is known."""

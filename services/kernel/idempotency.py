"""Repeats of one request: who asked for what under which key, and how a batch is sorted by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Answer = bytes | DomainError
"""The rendered response, or the refusal, of one request."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """What stands for an answer that is not there yet: ``work`` goes on outside the transaction and will give it.

    ``id`` tells one work from another: who repeats the request meanwhile waits for the same.
    """

    id: int
    work: object


Outcome = Answer | InFlight


class Scope(NamedTuple):
    """What a key is unique in: the subject and the method. A tuple, for it is a key of many dictionaries."""

    subject: int
    method: str
    key: str


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key and the SHA-256 of the request that it came with (without the key itself)."""

    scope: Scope
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer that a key got."""

    fingerprint: bytes
    answer: Answer


class Once:
    """Sorts a batch by idempotency key: what was answered before, what is new, what repeats a neighbour.

    ``answers`` has a place for each item; ``fresh`` lists the places that are to be decided. ``settle`` writes an
    answer to its place and to those that repeat it, and says that it is to be kept under the key.
    """

    def __init__(self, keys: Sequence[IdempotencyKey | None], stored: Mapping[Scope, Stored]) -> None:
        """Sort items with ``keys`` (None: no key was given) against the ``stored`` answers."""
        self._keys = keys
        self.answers: list[Outcome | None] = [None] * len(keys)
        self.fresh: list[int] = []
        self._first: dict[Scope, int] = {}
        self._repeats: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            if key is None:
                self.fresh.append(place)
            elif (known := stored.get(key.scope)) is not None:
                self.answers[place] = _replay(key, known.fingerprint, known.answer)
            elif (first := self._first.setdefault(key.scope, place)) == place:
                self.fresh.append(place)
            elif key.fingerprint != self._fingerprint(first):
                self.answers[place] = DomainError("IDEMPOTENCY_KEY_REUSED")
            else:
                self._repeats.setdefault(first, []).append(place)

    def settle(self, place: int, answer: Outcome) -> None:
        """Answer the item at ``place`` and those that repeat it."""
        for each in (place, *self._repeats.get(place, ())):
            self.answers[each] = answer

    def recheck(self, stored: Mapping[Scope, Stored]) -> None:
        """Give items the answer that another process has ``stored`` meanwhile, also those that a neighbour stood before."""
        if not stored:
            return
        late = {key.scope for place in self.fresh if (key := self._keys[place]) is not None and key.scope in stored}
        for place, key in enumerate(self._keys):
            if key is not None and key.scope in late:
                self.answers[place] = _replay(key, stored[key.scope].fingerprint, stored[key.scope].answer)
        self.fresh = [place for place in self.fresh if (key := self._keys[place]) is None or key.scope not in late]

    def kept(self, *, business: frozenset[str]) -> list[tuple[IdempotencyKey, Answer]]:
        """Pairs to store: settled items with a key, successes and refusals whose reason is in ``business``."""
        return [
            (key, answer)
            for place in self.fresh
            if (key := self._keys[place]) is not None
            and (answer := self.answers[place]) is not None
            and not isinstance(answer, InFlight)
            and (isinstance(answer, bytes) or answer.reason in business)
        ]

    def held(self) -> list[IdempotencyKey]:
        """Keys of items whose answer comes later."""
        keyed = [(self._keys[place], self.answers[place]) for place in self.fresh]
        return [key for key, answer in keyed if key is not None and isinstance(answer, InFlight)]

    def done(self) -> list[Answer]:
        """Every answer; a place without one is a fault of the caller."""
        answers = [answer for answer in self.outcomes() if not isinstance(answer, InFlight)]
        assert len(answers) == len(self.answers), "an answer that comes later was promised to nobody who waits"
        return answers

    def outcomes(self) -> list[Outcome]:
        """Every answer, or what will give it; a place with neither is a fault of the caller."""
        outcomes = [answer for answer in self.answers if answer is not None]
        assert len(outcomes) == len(self.answers), "an item of the batch was left without an answer"
        return outcomes

    def _fingerprint(self, place: int) -> bytes:
        key = self._keys[place]
        assert key is not None
        return key.fingerprint


def _replay(key: IdempotencyKey, fingerprint: bytes, answer: Answer) -> Answer:
    return answer if key.fingerprint == fingerprint else DomainError("IDEMPOTENCY_KEY_REUSED")

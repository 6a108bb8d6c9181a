"""I7 between rooms: every event that one told had its effect in each consumer, once, and no effect is of another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit.digest import Rows, differing
from services.platform.audit.finding import SHOWN, Finding
from services.platform.audit.since import PENDING_MS, chunks
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.platform.audit.since import Since

_metadata = sa.MetaData()
_outbox, _ = outbox_tables(_metadata)
_inbox = inbox_table(_metadata)
_O, _I = _outbox.c, _inbox.c


def effects(
    told: sa.Connection, taken: sa.Connection, pair: Pair, now_ms: int, *, settled: bool, since: Since
) -> list[Finding]:
    """Hold the events in ``told``'s outbox against their effects in ``taken``'s inbox.

    ``taken`` must see a state before that of ``told``: what was handled was told before. Between each other the two are
    connections to different databases.
    """
    taken.execute(sa.select(_I.event_id).limit(1)).first()  # from here on it sees one state
    new = since.new_ids(told, _outbox)
    seen = _Seen(pair, now_ms, settled=settled)
    if new:
        events, handled = _since(told, taken, pair, since.ms, new)
        seen.examined = Counter(topic for _, topic, _ in events)
        seen.compare(iter(events), iter(handled))
        return seen.findings()
    number = sa.cast(sa.func.substr(_I.event_id, len(pair.prefix) + 1), sa.BigInteger)
    ours = Rows(taken, number, _I.topic, where=(_I.event_id.like(f"{pair.prefix}%"),))
    ranges, seen.examined = differing(Rows(told, _O.id, _O.topic, where=(_O.topic.in_(pair.topics),)), ours)
    for low, high in ranges:
        effects_of = sa.select(number, _I.topic).where(*ours.where, number.between(low, high))
        events_of = sa.select(_O.id, _O.topic, _O.event_ms).where(_O.topic.in_(pair.topics), _O.id.between(low, high))
        events, handled = sorted(map(tuple, told.execute(events_of))), sorted(map(tuple, taken.execute(effects_of)))
        seen.compare(iter(events), iter(handled))
        if seen.is_full:
            break
    return seen.findings()


@dataclass(frozen=True, slots=True)
class Pair:
    """A service that tells events of ``topics``, and one that handles them."""

    service: str
    consumer: str
    topics: Sequence[str]

    @property
    def prefix(self) -> str:
        """How the ids of its events begin."""
        return f"{self.service}-"


_Told = tuple[int, str, int]
_Taken = tuple[int, str]


@dataclass(slots=True)
class _Seen:
    """What came of a comparison."""

    pair: Pair
    now_ms: int
    settled: bool
    examined: dict[str, int] = field(default_factory=dict)
    pending: Counter[str] = field(default_factory=Counter)
    breaches: dict[str, list[str]] = field(default_factory=dict)

    def compare(self, told: Iterator[_Told], taken: Iterator[_Taken]) -> None:
        """Walk along both, which ascend by id: (id, topic, time in ms) and (id, topic)."""
        end = (1 << 64, "")
        effect = next(taken, end)
        for event_id, topic, at_ms in told:
            while effect[0] < event_id:
                self._unknown(effect)
                effect = next(taken, end)
            if effect[0] == event_id:
                if effect[1] != topic:
                    self._say(topic, f"handled {self.pair.prefix}{event_id} as {effect[1]}, not as {topic}")
                effect = next(taken, end)
            elif self.settled or self.now_ms - at_ms > PENDING_MS:
                self._say(topic, f"never handled {self.pair.prefix}{event_id} of {topic}")
            else:
                self.pending[topic] += 1
        while effect is not end:
            self._unknown(effect)
            effect = next(taken, end)

    def _unknown(self, effect: _Taken) -> None:
        event_id, topic = effect
        self._say(topic, f"handled {self.pair.prefix}{event_id} of {topic}, which nobody told")

    def _say(self, topic: str, what: str) -> None:
        said = self.breaches.setdefault(topic if topic in self.pair.topics else self.pair.topics[0], [])
        if len(said) < SHOWN:
            said.append(f"{self.pair.consumer} {what}")

    @property
    def is_full(self) -> bool:
        """Whether more is not shown."""
        return any(len(said) >= SHOWN for said in self.breaches.values())

    def findings(self) -> list[Finding]:
        """One finding for each topic."""
        return [
            Finding("I7", f"{topic} handled by {self.pair.consumer}", self.examined.get(topic, 0),
                    self.breaches.get(topic, []), self.pending[topic])
            for topic in self.pair.topics
        ]  # fmt: skip


def _since(
    told: sa.Connection, taken: sa.Connection, pair: Pair, ms: int, new: int
) -> tuple[list[_Told], list[_Taken]]:
    """Return what is new on either side, with its counterpart on the other, however old that is."""
    cut = len(pair.prefix)
    rows = taken.execute(sa.select(_I.event_id, _I.topic).where(_I.taken_ms >= ms, _I.event_id.like(f"{pair.prefix}%")))
    handled = {int(event_id[cut:]): topic for event_id, topic in rows}
    query = sa.select(_O.id, _O.topic, _O.event_ms).where(_O.topic.in_(pair.topics))
    events = {row.id: (row.id, row.topic, row.event_ms) for row in told.execute(query.where(_O.id > new))}
    for some in chunks(handled.keys() - events.keys()):
        events |= {row.id: (row.id, row.topic, row.event_ms) for row in told.execute(query.where(_O.id.in_(some)))}
    for names in chunks([f"{pair.prefix}{event_id}" for event_id in events.keys() - handled.keys()]):
        found = taken.execute(sa.select(_I.event_id, _I.topic).where(_I.event_id.in_(names)))
        handled |= {int(event_id[cut:]): topic for event_id, topic in found}
    return sorted(events.values()), sorted(handled.items())

"""What the Envoy beside an instance has counted: read from its admin listener, never from what the release says of itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from services.cli.delivery.judgement import Figures
from services.cli.probes import FAILURES, ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.cli.delivery.judgement import Span
    from services.cli.layout import Instance

FAULTS = frozenset({"2", "4", "8", "12", "13", "14", "15"})
"""Statuses of gRPC that are the service's fault: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED (it says that it has too
much to do), UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. The others tell the client something about its call."""
_PREFIX = "cluster.service."
_HEALTH = _PREFIX + "grpc.grpc.health."
_RESETS = tuple(f"{_PREFIX}upstream_rq_{kind}_reset" for kind in ("rx", "tx"))
"""Calls without an answer: the service broke off, or the caller, who waited in vain."""
_PATH = "/stats?filter=%5Ecluster%5C.service%5C.(grpc%5C.|upstream_rq_.x_reset)&format=json&histogram_buckets=detailed"
_MERGE_S = 0.1
"""An Envoy gathers the times of its threads when it is asked (stats_flush_on_admin), and shows them to whoever asks next."""


@dataclass(frozen=True)
class Counts:
    """Answers by status (and "reset"), and times in milliseconds by span."""

    answers: Counter[str] = field(default_factory=Counter)
    times: Counter[Span] = field(default_factory=Counter)

    def __add__(self, other: Counts) -> Counts:
        """Return both together."""
        return Counts(self.answers + other.answers, self.times + other.times)

    def since(self, before: Counts) -> Counts:
        """Return what came after ``before``; an Envoy that began anew in between counts from its start."""
        if any(before.answers[each] > self.answers[each] for each in before.answers):
            return self
        return Counts(self.answers - before.answers, self.times - before.times)

    def figures(self) -> Figures:
        """Return them as they are judged."""
        failed = sum(count for status, count in self.answers.items() if status in FAULTS or status == "reset")
        return Figures(self.answers.total(), failed, self.times)

    @classmethod
    def of(cls, said: dict[str, Any]) -> Self:
        """Read what an Envoy says; health checks are nobody's calls."""
        answers: Counter[str] = Counter()
        times: Counter[Span] = Counter()
        for each in said.get("stats", []):
            if "histograms" in each:
                for histogram in each["histograms"].get("details", []):
                    if not histogram["name"].startswith(_HEALTH):
                        times += _spans(histogram.get("totals", []))
                continue
            name, status = each["name"], each["name"].rpartition(".")[2]
            if name in _RESETS:
                answers["reset"] += each["value"]
            elif status.isdecimal() and not name.startswith(_HEALTH):
                answers[status] += each["value"]
        return cls(answers, times)


def _spans(totals: Iterable[dict[str, Any]]) -> Counter[Span]:
    found: Counter[Span] = Counter()
    for each in totals:
        found[each["lower_bound"], each["lower_bound"] + each["width"]] += each["count"]
    return found


async def read(instances: Iterable[Instance]) -> dict[str, Counts]:
    """Return the counts beside each instance by its name; an Envoy that does not answer has counted nothing."""
    wanted = list(instances)
    found = await asyncio.gather(*(asyncio.to_thread(_read, each.admin) for each in wanted))
    return {each.name: counts for each, counts in zip(wanted, found, strict=True)}


def _read(admin: int) -> Counts:
    try:
        ask(admin, _PATH)
        time.sleep(_MERGE_S)
        status, body = ask(admin, _PATH)
        return Counts.of(json.loads(body)) if status == 200 else Counts()
    except FAILURES:
        return Counts()

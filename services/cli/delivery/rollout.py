"""One rollout: step by step to the new release, or back to the old one; calls go on meanwhile.

It runs in the supervisor, so that it goes on when the command that asked for it is killed. Config may die and come back:
it keeps the weights, and what it is to be told is tried again. When the supervisor dies, all its children die with it,
and the next `up` starts the release that was decided on last: the old one until the new one has stood its last trial.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from services.cli.delivery import counts, plan
from services.cli.delivery.counts import Counts
from services.cli.delivery.judgement import FAILED_MIN, Figures, Limits, Verdict, judge
from services.cli.exits import CommandError
from services.cli.fleet import NotServing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.cli.control import Tell
    from services.cli.delivery.plan import Step
    from services.cli.layout import Instance
    from services.cli.releases import Release, Releases

WARM_S = 3.0
"""A new process is not judged by its first calls."""
WINDOWS_MAX = 4
"""After so many windows with too few calls nothing was proven, and the old release stays."""
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted."""

    service: str
    strategy: str
    release: Release
    window_s: float = 15.0
    limits: Limits = field(default_factory=Limits)
    shares: tuple[int, ...] = plan.SHARES
    warm_s: float = WARM_S


class Instances(Protocol):
    """The instances of a mesh that runs."""

    def of(self, service: str) -> tuple[Instance, ...]:
        """Return those of a service by number."""
        ...

    def starts(self, instance: Instance) -> int:
        """Return how often the process of an instance was started."""
        ...

    async def add(self, service: str, release: Release) -> Instance:
        """Start a further one; it serves when this returns. Raises NotServing, and leaves it there."""
        ...

    async def remove(self, instance: Instance) -> None:
        """End one in order."""
        ...


class Shares(Protocol):
    """How the calls of a service are shared."""

    async def set(self, service: str, weights: Mapping[str, int], **said: object) -> None:
        """Share them by ``weights`` of instances; none: all are alike. Raises CommandError when that cannot be told."""
        ...


class _Refused(Exception):
    """The new release was judged, and is worse."""


class Rollout:
    """A rollout of ``order`` in ``fleet``; ``tell`` hears each step."""

    def __init__(self, order: Order, fleet: Instances, releases: Releases, sharing: Shares, tell: Tell) -> None:
        """Begin where the fleet is."""
        self._order, self._fleet, self._releases, self._sharing, self._tell = order, fleet, releases, sharing, tell
        self._before = fleet.of(order.service)
        self._since_start: dict[str, Counts] = {}

    def _of(self, *, new: bool) -> tuple[Instance, ...]:
        return tuple(
            each for each in self._fleet.of(self._order.service) if (each.release == self._order.release) is new
        )

    async def run(self) -> bool:
        """Roll out; whether the new release is what runs now. Raises CommandError when config could not be reached at all."""
        order, old = self._order, self._before[0].release
        planned = plan.steps(order.strategy, len(self._before), order.shares)
        self._releases.begin(order.service)
        self._since_start = await counts.read(self._before)
        title = f"{order.service}: {old.name} -> {order.release.name}, {order.strategy}, {len(planned)} steps"
        self._tell("rollout_began", title, service=order.service, old=old.name, new=order.release.name,
                   strategy=order.strategy)  # fmt: skip
        try:
            await self._share(0, "begin")  # who comes now waits outside
            for number, step in enumerate(planned, 1):
                await self._take(step, f"{number} of {len(planned)}")
            self._releases.decide(order.service, order.release)
        except (_Refused, NotServing, CommandError) as error:
            await self._back(len(self._before), old, str(error))
            return False
        await self._finish()
        return True

    async def _take(self, step: Step, name: str) -> None:
        await self._remove_old(step.old)
        while len(self._of(new=True)) < step.new:
            made = await self._fleet.add(self._order.service, self._order.release)
            self._tell("instance_added", f"  + {made.name} serves as {made.release.name}", name=made.name)
        await self._share(step.share, name)
        if step.share:
            await self._try_out(name)

    async def _remove_old(self, leave: int) -> None:
        while len(self._of(new=False)) > leave:
            gone = self._of(new=False)[0]
            await self._fleet.remove(gone)
            self._tell("instance_removed", f"  - {gone.name} has ended", name=gone.name)

    async def _share(self, share: int, name: str) -> None:
        new, old = ([each.name for each in self._of(new=which)] for which in (True, False))
        order = self._order
        await self._sharing.set(
            order.service, plan.weights(new, old, share),
            release=order.release.name, strategy=order.strategy, step=name, share=share,
        )  # fmt: skip
        self._tell("shared", f"  step {name}: {share} % of the calls to {order.release.name}", step=name, share=share)

    async def _try_out(self, name: str) -> None:
        """Watch both releases for a window, or for a few when there are too few calls. Raises _Refused."""
        order, new = self._order, self._of(new=True)
        starts = {each.name: self._fleet.starts(each) for each in new}
        await asyncio.sleep(order.warm_s)
        new_before, old_before = await counts.read(new), await counts.read(self._of(new=False))
        began, windows = time.monotonic(), 1
        while True:
            await asyncio.sleep(min(_LOOK_S, order.window_s))
            if dead := [each.name for each in new if self._fleet.starts(each) != starts[each.name]]:
                raise _Refused(f"{dead[0]} ended by itself")
            now = since(await counts.read(new), new_before).figures()
            then = await self._old_figures(old_before)
            judged = judge(now, then, order.limits)
            over = time.monotonic() - began >= windows * order.window_s
            if over and judged.verdict is Verdict.UNKNOWN and windows < WINDOWS_MAX:
                windows += 1
            elif over or (judged.verdict is Verdict.BAD and now.failed >= FAILED_MIN):
                break
        said: dict[str, Any] = {"step": name, "verdict": judged.verdict, "why": judged.why}
        for which, figures in (("new", now), ("old", then)):
            said[which] = {"calls": figures.calls, "failed": figures.failed, "p99_ms": figures.p99_ms}
        text = f"  step {name}: {judged.verdict}: {judged.why}\n    new: {now}\n    old: {then}"
        self._tell("judged", text, **said)
        if judged.verdict is not Verdict.GOOD:
            raise _Refused(judged.why)

    async def _old_figures(self, before: Mapping[str, Counts]) -> Figures:
        """Return what the old release did in the meantime; where that is too little, what it has done since it began."""
        lately = since(await counts.read(self._of(new=False)), before).figures()
        if lately.calls >= self._order.limits.calls_min:
            return lately
        return sum(self._since_start.values(), Counts()).figures()

    async def _finish(self) -> None:
        await self._remove_old(0)
        await self._clear()
        self._releases.end(self._order.service)
        release = self._order.release.name
        self._tell("deployed", f"{self._order.service} is {release}", service=self._order.service, release=release)

    async def _back(self, count: int, old: Release, why: str) -> None:
        """Give all calls to the old release, bring it to its former strength, and end the new one."""
        service = self._order.service
        self._tell("rolling_back", f"  back to {old.name}: {why}", service=service, release=old.name, why=why)
        for work in (self._only_old, lambda: self._refill(count, old), self._remove_new, self._clear):
            try:
                await work()
            except (NotServing, CommandError) as error:
                # What follows helps all the same: once the new ones are gone, no weight holds the old ones back.
                self._tell("trouble", f"  ! {error}", fault=str(error))
        self._releases.end(service)
        text = f"{service} is {old.name} again: {why}"
        self._tell("rolled_back", text, service=service, release=old.name, why=why)

    async def _only_old(self) -> None:
        await self._share(0, "back")

    async def _refill(self, count: int, old: Release) -> None:
        while len(self._of(new=False)) < count:
            made = await self._fleet.add(self._order.service, old)
            self._tell("instance_added", f"  + {made.name} serves as {made.release.name}", name=made.name)
            await self._only_old()

    async def _remove_new(self) -> None:
        for gone in reversed(self._of(new=True)):
            await self._fleet.remove(gone)
            self._tell("instance_removed", f"  - {gone.name} has ended", name=gone.name)

    async def _clear(self) -> None:
        await self._sharing.set(self._order.service, {}, release=self._fleet.of(self._order.service)[0].release.name)


def since(now: Mapping[str, Counts], before: Mapping[str, Counts]) -> Counts:
    """Add up what each Envoy has counted since ``before``."""
    return sum((each.since(before.get(name, Counts())) for name, each in now.items()), Counts())

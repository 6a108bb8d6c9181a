"""What a mesh that runs is asked for: instances, and releases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.cli.delivery import plan
from services.cli.delivery.judgement import Limits
from services.cli.delivery.migrating import migrate
from services.cli.delivery.rollout import Order, Rollout
from services.cli.delivery.sharing import Sharing
from services.cli.exits import CommandError, Exit
from services.cli.fleet import NotServing, check
from services.cli.releases import Release
from services.cli.settings import INSTANCES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.cli.control import Do, Tell
    from services.cli.fleet import Fleet
    from services.cli.releases import Releases


class Delivery:
    """What a mesh that runs can be asked by `paymesh scale` and `paymesh deploy`."""

    def __init__(self, fleet: Fleet, releases: Releases, admin: Mapping[str, str]) -> None:
        """Change ``fleet``; config is told as the operator ``admin``."""
        self._fleet, self._releases = fleet, releases
        layout = fleet.layout
        self._sharing = Sharing(layout.rest_url, layout.folder.ca, admin)

    def orders(self) -> Mapping[str, Do]:
        """Return what can be asked, by name."""
        return {"scale": self._scale, "deploy": self._deploy}

    async def leave_off(self, tell: Tell) -> None:
        """End what a mesh that was killed in the middle of a rollout left: no instance has a weight of its own any more."""
        for service in sorted(self._releases.unfinished):
            release = self._releases.of(service).name
            try:
                await self._sharing.set(service, {}, release=release)
            except CommandError as error:
                tell("warning", f"  ! {error}", fault=str(error))
                continue
            self._releases.end(service)
            text = f"  ! a rollout of {service} was interrupted; it is {release}"
            tell("rollout_left_off", text, service=service, release=release)

    async def _scale(self, order: dict[str, Any], tell: Tell) -> Exit:
        try:
            await self._fleet.scale(str(order["service"]), int(order["count"]), tell)
        except NotServing as error:
            raise CommandError(Exit.UNAVAILABLE, f"{error}; it was removed again.") from None
        return Exit.OK

    async def _deploy(self, said: dict[str, Any], tell: Tell) -> Exit:
        order = _order(said)
        check(order.service, 1)
        before = self._fleet.of(order.service)
        if order.release.name == before[0].release.name:
            raise CommandError(
                Exit.BAD_INPUT, f"{order.service} is {order.release.name} already: give another --version."
            )
        needed = plan.most(plan.steps(order.strategy, len(before), order.shares))
        if needed > INSTANCES_MAX:
            what = (
                f"{order.strategy} needs {needed} instances of {order.service} at a time; there can be {INSTANCES_MAX}."
            )
            raise CommandError(Exit.REFUSED, what)
        if order.release.tree:
            self._releases.migrate(order.service)
            await migrate(self._fleet.layout, order.service, order.release)
        rollout = Rollout(order, self._fleet, self._releases, self._sharing, tell)
        return Exit.OK if await rollout.run() else Exit.CHECK_FAILED


def _order(said: dict[str, Any]) -> Order:
    release = Release(said["version"], tuple(sorted(said["environ"].items())), said["tree"])
    limits = Limits(calls_min=said["calls_min"])
    return Order(said["service"], said["strategy"], release, said["window_s"], limits, tuple(said["shares"]))

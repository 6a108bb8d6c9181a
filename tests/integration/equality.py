"""What each plane makes of each method, and the table of it: `python -m tests.integration.equality`.

A call is made by REST through the edge, by gRPC through the edge and by gRPC inside the mesh, through real Envoys and the
interceptor of the services; what comes out must be the same, and what the contract says.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.contract.load import contract
from services.contract.model import Auth, Idempotency
from services.mesh.node import EDGE
from tests.integration.planes import Inside, Native, Plane, Planes, Rest, Said, Who, narrowed, right
from tests.integration.requests import invalid, valid, violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from services.contract.model import Method

KEY = "equal-to-all"
ANOTHER = "77"
CLIENT = "2001"
"""The subject whose calls are counted up to the limit."""
LATE_S = 2.0
"""How much later than the contract says a call may end on a machine that does much else."""
NO_WAY_IN = "no way in"
_CLOSED = {"ROUTE_NOT_FOUND", "METHOD_NOT_FOUND", "CALLER_NOT_ALLOWED"}
"""What says so: at REST, in gRPC at the edge, and at a sidecar."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked of a method in one way, what the contract says to it, and what each plane said; "-": not asked there."""

    method: Method
    aspect: str
    wanted: str
    said: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether all planes that were asked said what the contract says."""
        return {*self.said} - {"-"} <= {self.wanted}

    def __str__(self) -> str:
        """Name what is not equal."""
        told = ", ".join(f"{plane}: {said}" for plane, said in zip(("REST", "gRPC", "mesh"), self.said, strict=True))
        return f"{self.method.full_name} {self.aspect}: {self.wanted} is wanted; {told}"


@dataclass(frozen=True, slots=True)
class Judge:
    """The three planes, and the two at an edge that lets one call through."""

    rest: Rest
    native: Native
    inside: Inside
    few: tuple[Rest, Native]

    def cells(self, method: Method) -> Iterator[Cell]:
        """Ask everything of a method but how long it may take."""
        yield from self._admission(method)
        yield from self._ownership(method)
        yield from self._input(method)
        yield from self._limit(method)

    def _admission(self, method: Method) -> Iterator[Cell]:
        request, public = valid(method), method.auth is Auth.PUBLIC
        if method.auth is Auth.INTERNAL:
            inside = self.inside.as_peer(EDGE, method, request, Who("42"), KEY)
            said = [plane.call(method, request, Who("42"), KEY) for plane in (self.rest, self.native)]
            yield Cell(method, "client", NO_WAY_IN, _told([*said, inside]))
            yield Cell(method, "right", "OK", ("-", "-", self.inside.call(method, request, Who(), KEY).reason))
            return
        yield self._asked(method, "nobody", "OK" if public else "UNAUTHENTICATED", Who())
        if method.scopes:
            wanted = f"SCOPE_MISSING {{'scope': '{method.scopes[0]}'}}"
            yield self._asked(method, "no scope", wanted, Who("42", ("another:scope",)))
        yield self._asked(method, "right", "OK", right(method, request))
        if method.idempotency is Idempotency.REQUIRED:
            yield self._asked(method, "no key", "IDEMPOTENCY_KEY_MISSING", right(method, request), key="")

    def _ownership(self, method: Method) -> Iterator[Cell]:
        owner = method.owner
        if owner and owner.field:
            yield self._asked(method, "another", f"NOT_OWNER {{'field': '{owner.field}'}}", Who(ANOTHER, method.scopes))
            if owner.lifted_by:
                yield self._asked(method, "another, lifted", "OK", Who(ANOTHER, (*method.scopes, owner.lifted_by)))

    def _input(self, method: Method) -> Iterator[Cell]:
        request, good = invalid(method), right(method, valid(method))
        if request is None:
            return
        lifted = (method.owner.lifted_by,) if method.owner and method.owner.lifted_by else ()
        who = Who(good.subject, (*good.scopes, *lifted))
        planes: list[Plane] = [self.inside] if method.auth is Auth.INTERNAL else [self.rest, self.native, self.inside]
        said = [_in_full(plane.call(method, request, who, KEY)) for plane in planes]
        wanted = f"INVALID_ARGUMENT {', '.join(field or 'the whole' for field in violations(request))}"
        yield Cell(method, "invalid", wanted, (*["-"] * (3 - len(said)), *said))

    def _limit(self, method: Method) -> Iterator[Cell]:
        limit, request = method.rate_limit, valid(method)
        if limit is None or method.auth is Auth.INTERNAL:
            return
        good = right(method, request)
        # A peer in the mesh is no client: the edge has counted, and the circuit breaker bounds the rest.
        if not limit.is_global:  # how much is left over all edges, only the gateway can say
            told = [plane.call(method, request, good, KEY).limit for plane in (self.rest, self.native)]
            yield Cell(method, "limit", str(limit.requests), (*told, "-"))
        over, who = [], Who(CLIENT, right(method, request).scopes) if good.subject else Who()
        for plane in self.few:
            plane.call(method, request, who, KEY)
            refusal = plane.call(method, request, who, KEY).refusal
            over.append(f"{refusal.reason} {refusal.retry_after}" if refusal else "OK")
        yield Cell(method, "over it", f"RATE_LIMITED {max(1, limit.per_ms // 1000)}", (*over, "-"))

    def _asked(self, method: Method, aspect: str, wanted: str, who: Who, *, key: str = KEY) -> Cell:
        said = [plane.call(method, valid(method), who, key) for plane in (self.rest, self.native, self.inside)]
        return Cell(method, aspect, wanted, tuple(map(_in_full, said)))


def _in_full(said: Said) -> str:
    refusal = said.refusal
    if refusal is None:
        return "OK"
    if refusal.violations:
        return f"{refusal.reason} {', '.join(field or 'the whole' for field in refusal.violations)}"
    return f"{refusal.reason} {refusal.metadata}" if refusal.metadata else refusal.reason


def _told(said: Iterable[Said]) -> tuple[str, ...]:
    return tuple(NO_WAY_IN if each.reason in _CLOSED else each.reason for each in said)


def timed(planes: Planes, judge: Judge, methods: Iterable[Method]) -> list[Cell]:
    """Let every method hang on every plane at once, and see when the mesh ends it."""

    async def hang(_: str, __: Method) -> None:
        await asyncio.sleep(60)

    planes.rooms.behave = hang
    try:
        with ThreadPoolExecutor(256) as pool:
            waiting = {method: [*_begun(pool, judge, method)] for method in methods}
            return [_ended(method, [each() for each in calls]) for method, calls in waiting.items()]
    finally:
        planes.rooms.behave = None


def _begun(pool: ThreadPoolExecutor, judge: Judge, method: Method) -> Iterator[Callable[[], Said]]:
    request = valid(method)
    planes: list[Plane] = [judge.inside] if method.auth is Auth.INTERNAL else [judge.rest, judge.native, judge.inside]
    for plane in planes:
        yield pool.submit(plane.call, method, request, right(method, request), KEY).result


def _ended(method: Method, said: list[Said]) -> Cell:
    wanted = method.timeout_ms / 1000
    told = [
        f"{_in_full(each)} {wanted:g} s"
        if wanted - 0.05 <= each.seconds <= wanted + LATE_S
        else f"{_in_full(each)} {each.seconds:.2f} s"
        for each in said
    ]
    return Cell(method, "time-out", f"DEADLINE_EXCEEDED {wanted:g} s", (*["-"] * (3 - len(told)), *told))


@contextmanager
def judging(directory: Path) -> Iterator[tuple[Planes, Judge]]:
    """Run a mesh with a second edge that lets one call of each method through."""
    with Planes(directory).running() as planes:
        few = planes.ways(planes.second_edge(2, narrowed(planes.contract, 1)))[:2]
        yield planes, Judge(*planes.ways(), few)


def table(cells: Iterable[Cell]) -> str:
    """Render the methods with what all three planes say to them; what is not equal is told in full below."""
    by_method: dict[Method, dict[str, Cell]] = {}
    for cell in cells:
        by_method.setdefault(cell.method, {})[cell.aspect] = cell
    lines = [f"{'method':<42}" + "".join(f"{aspect:<18}" for aspect in ASPECTS)]
    for method, found in by_method.items():
        marks = (_mark(found[aspect]) if aspect in found else "" for aspect in ASPECTS)
        lines.append(f"{method.service}.{method.name:<{41 - len(method.service)}}" + "".join(f"{m:<18}" for m in marks))
    every = [cell for found in by_method.values() for cell in found.values()]
    unequal = [cell for cell in every if not cell.equal]
    asked = sum(len([said for said in cell.said if said != "-"]) for cell in every)
    lines += [
        "",
        f"{len(by_method)} methods, {len(every)} questions, {asked} answers, {len(unequal)} unequal",
        *map(str, unequal),
    ]
    return "\n".join(lines)


ASPECTS = (
    "client",
    "nobody",
    "no scope",
    "another",
    "another, lifted",
    "right",
    "no key",
    "invalid",
    "limit",
    "over it",
    "time-out",
)
_SHORT = {"UNAUTHENTICATED": "refused", "NOT_OWNER": "not found", "SCOPE_MISSING": "refused"}


def _mark(cell: Cell) -> str:
    word, _, rest = cell.wanted.partition(" ")
    told = {
        "INVALID_ARGUMENT": f"{rest.count(',') + 1} violated",
        "DEADLINE_EXCEEDED": rest,
        "RATE_LIMITED": f"after {rest} s",
    }
    planes = "".join("=" if said == cell.wanted else said if said == "-" else "!" for said in cell.said)
    return f"{planes} {told.get(word) or _SHORT.get(word) or cell.wanted}"[:17]


def main() -> int:
    """Ask all and print the table; exit code 1 when something is not equal."""
    with tempfile.TemporaryDirectory(prefix="paymesh-") as made, judging(Path(made)) as (planes, judge):
        methods = [*contract().methods.values()]
        cells = [cell for method in methods for cell in judge.cells(method)] + timed(planes, judge, methods)
    print(table(cells))
    return 0 if all(cell.equal for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What no rule can know is noticed by tests of behaviour, run in a copy of the tree that is generated anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.architecture.tree import repository

if TYPE_CHECKING:
    from tests.contract.mutation.linted import Mutant

_ROOMS = ("tests/contract/test_rooms.py",)
BEHAVIOURS = {
    "method.callers": _ROOMS,
    "event.consumers": _ROOMS,
    "state.next": (),
    "state.event": (),
}
"""What a policy line says -> the tests that notice when it is gone; none named: those of the room that know its states."""
_POLICY = "tests/integration/test_envoy_policy.py"
_REPEATED = f"{_POLICY}::test_call_is_repeated_where_that_is_safe"
_LEFT_OUT = f"{_POLICY}::test_instance_that_fails_five_times_in_a_row_is_left_out_for_five_seconds"
_CROWD = f"{_POLICY}::test_service_has_1024_calls_of_a_caller_in_hand_and_no_more[payment]"
_GRANTED = f"{_POLICY}::test_user_makes_as_many_calls_as_the_contract_grants"
_PAYMENT, _GET = "paymesh.payment.v1.PaymentService", "paymesh.payment.v1.PaymentService.GetPayment"
_RULE = "paymesh.risk.v1.RiskService.CreateRule"
SHOWN = {
    (_PAYMENT, "service.circuit_breaker"): _CROWD,
    (_PAYMENT, "service.circuit_breaker.requests_max"): _CROWD,
    (_PAYMENT, "service.circuit_breaker.pending_max"): f"{_POLICY}::test_512_calls_wait_for_a_connection_and_no_more",
    (_PAYMENT, "service.circuit_breaker.connections_max"): (
        f"{_POLICY}::test_256_connections_are_made_to_a_service_and_no_more"
    ),
    (_PAYMENT, "service.circuit_breaker.retry_budget_percent"): (
        f"{_POLICY}::test_retry_storm_is_held_to_a_fifth_of_the_load"
    ),
    (_PAYMENT, "service.outlier_detection"): _LEFT_OUT,
    (_PAYMENT, "service.outlier_detection.consecutive_failures"): _LEFT_OUT,
    (_PAYMENT, "service.outlier_detection.interval"): _LEFT_OUT,
    (_PAYMENT, "service.outlier_detection.ejection_time"): _LEFT_OUT,
    (_PAYMENT, "service.outlier_detection.ejection_percent_max"): (
        f"{_POLICY}::test_half_of_the_instances_may_be_left_out_and_no_more"
    ),
    (_GET, "method.retry"): f"{_REPEATED}[{_GET}]",
    (_GET, "method.retry.attempts"): f"{_REPEATED}[{_GET}]",
    (_RULE, "method.retry.on"): f"{_REPEATED}[{_RULE}]",
    (_GET, "method.timeout"): "tests/integration/test_envoy_edge.py::test_504_when_the_contract_s_time_is_over",
    (_RULE, "method.rate_limit"): _GRANTED,
    (_RULE, "method.rate_limit.requests"): _GRANTED,
}
"""What a rule of the linter asks for, and a real Envoy shows besides: of an element, a kind of line -> the test that misses it.

One element stands for all: the tests go over every service and method."""
_STAGES = ("stubs", "states")
"""What these tests read of all that is generated; the linter has had its say, and golden files are no behaviour."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def kind(mutant: Mutant) -> str:
    """Return what the line is about: `state.next`."""
    return mutant.line.says.partition(":")[0]


class Copy:
    """A copy of the tree, in which one policy line after the other is left out."""

    def __init__(self, directory: Path) -> None:
        """Copy every file of the project."""
        self._tree, self._root = repository(), directory
        for path in self._tree.paths:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._tree.root / path, directory / path)

    def failing(self, mutant: Mutant, *tests: str) -> str:
        """Return the first of the tests (none: those of BEHAVIOURS) that fails without the line; "" when all pass."""
        source = self._root / "protos" / mutant.file
        kept = source.read_text()
        source.write_text(mutant.text)
        try:
            for stage in _STAGES:
                made = self.run("services.cli.generate", "--stage", stage)
                assert made.returncode == 0, made.stderr
            return self.first_failure(*(tests or self.tests(mutant)))
        finally:
            source.write_text(kept)

    def first_failure(self, *tests: str) -> str:
        """Return the first test that fails in the copy as it is."""
        done = self.run("pytest", "-x", "-q", "-p", "no:cacheprovider", *tests)
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        found = _FAILED.search(done.stdout)
        return found[1] if found else ""

    def tests(self, mutant: Mutant) -> list[str]:
        """Name the tests that are to notice that a line is gone."""
        room = mutant.file.split("/")[1]
        tests = [path for path in self._tree.paths if path.match(f"tests/unit/{room}/test_*.py")]
        knowing = [str(path) for path in tests if re.search(r"\bstates\b", self._tree.text(path))]
        return [*BEHAVIOURS[kind(mutant)]] or knowing

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a module in the copy."""
        roots = os.pathsep.join([str(self._root), str(self._root / "gen" / "python")])
        environ = {**os.environ, "PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=self._root, env=environ, capture_output=True, text=True, check=False)

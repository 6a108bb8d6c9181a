"""What decides over a release: the plan, the weights, the figures, the judgement; and the file that says what is to run."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from services.cli.delivery.counts import Counts
from services.cli.delivery.judgement import Figures, Limits, Verdict, at_least, judge, percentile
from services.cli.delivery.plan import STRATEGIES, Step, most, steps, weights
from services.cli.exits import CommandError, Exit
from services.cli.releases import BASE, Release, Releases


def _figures(calls: int, failed: int = 0, slow: int = 0) -> Figures:
    return Figures(calls, failed, {(5.0, 5.1): calls - slow, (900.0, 910.0): slow})


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        (_figures(100), _figures(100), Verdict.GOOD),
        (_figures(29), _figures(100), Verdict.UNKNOWN),
        (_figures(30, failed=1), _figures(100), Verdict.GOOD),
        (_figures(30, failed=3), _figures(100), Verdict.BAD),
        (_figures(5, failed=5), _figures(100), Verdict.BAD),
        (_figures(4, failed=4), _figures(100), Verdict.UNKNOWN),
        (_figures(100, failed=10), _figures(100, failed=10), Verdict.GOOD),
        (_figures(100, failed=30), _figures(100, failed=10), Verdict.BAD),
        (_figures(100, slow=1), _figures(100), Verdict.GOOD),
        (_figures(100, slow=10), _figures(100), Verdict.BAD),
        (_figures(100, slow=10), _figures(100, slow=10), Verdict.GOOD),
        (_figures(100, slow=100), Figures(0, 0, {}), Verdict.GOOD),
    ],
)
def test_judgement_of_a_release(new: Figures, old: Figures, verdict: Verdict) -> None:
    """By what its calls prove: one that went wrong proves nothing, what the old release does too is no fault of the new."""
    assert judge(new, old, Limits()).verdict is verdict


def test_good_release_is_rarely_sent_back() -> None:
    """With the very failures that are allowed, 1 %, few rollouts are judged bad."""
    chance = random.Random(7)
    found = Counter(
        judge(_figures(100, failed=sum(chance.random() < 0.01 for _ in range(100))), _figures(100), Limits()).verdict
        for _ in range(1000)
    )
    assert found[Verdict.BAD] <= 40


def test_share_that_is_proven() -> None:
    """Wilson's lower end: nothing by no failure, little by one of many, nearly all by all of many."""
    assert at_least(0, 0) == at_least(0, 1000) == 0.0
    assert at_least(1, 200) < 0.001
    assert at_least(5, 100) == pytest.approx(0.0167, abs=0.001)
    assert at_least(100, 100) > 0.9


def test_percentile_of_spans() -> None:
    """The upper end of the span in which it lies; none of nothing."""
    assert percentile({}, 0.99) is None
    assert percentile({(1.0, 1.1): 98, (3.0, 3.1): 2}, 0.99) == 3.1
    assert percentile({(3.0, 3.1): 1, (1.0, 1.1): 99}, 0.99) == 1.1


def test_counts_are_read_from_what_an_envoy_says() -> None:
    """Answers by status with what was broken off, times of all methods; health checks and names beside are nobody's."""
    service, health = (
        "cluster.service.grpc.paymesh.payment.v1.PaymentService",
        "cluster.service.grpc.grpc.health.v1.Health",
    )
    span = {"lower_bound": 7, "width": 0.1, "count": 2}
    said = {
        "stats": [
            {"name": f"{service}.GetPayment.0", "value": 8},
            {"name": f"{service}.GetPayment.total", "value": 9},
            {"name": f"{service}.CreatePayment.0", "value": 2},
            {"name": f"{service}.CreatePayment.13", "value": 1},
            {"name": f"{service}.CreatePayment.5", "value": 4},
            {"name": f"{health}.Check.0", "value": 1000},
            {"name": "cluster.service.upstream_rq_rx_reset", "value": 1},
            {"name": "cluster.service.upstream_rq_rx_reset_no_error", "value": 5},
            {
                "histograms": {
                    "details": [
                        {"name": f"{service}.GetPayment.upstream_rq_time", "totals": [span]},
                        {"name": f"{service}.CreatePayment.upstream_rq_time", "totals": [span]},
                        {"name": f"{health}.Check.upstream_rq_time", "totals": [span]},
                        {"name": f"{service}.RefundPayment.upstream_rq_time"},
                    ]
                }
            },
        ]
    }
    counts = Counts.of(said)
    assert counts.answers == {"0": 10, "13": 1, "5": 4, "reset": 1}
    figures = counts.figures()
    assert (figures.calls, figures.failed, figures.p99_ms) == (16, 2, 7.1)
    assert Counts.of({"stats": []}).figures() == Figures(0, 0, {})


def test_counts_of_a_window() -> None:
    """What came in between; an Envoy that began anew counts from its start."""
    before, now = (Counts(Counter({"0": n}), Counter({(1.0, 1.1): n})) for n in (10, 25))
    assert now.since(before) == Counts(Counter({"0": 15}), Counter({(1.0, 1.1): 15}))
    assert before.since(now) == before
    assert (before + now).answers == {"0": 35}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_steps_of_a_strategy(strategy: str, count: int) -> None:
    """They end with all calls at as many new instances, an old one beside them; calls are never taken back on the way."""
    plan = steps(strategy, count)
    assert (plan[-1].new, plan[-1].share) == (count, 100)
    assert all(step.old >= 1 for step in plan)
    assert [step.share for step in plan] == sorted(step.share for step in plan)
    assert [step.new for step in plan] == sorted(step.new for step in plan)
    assert most(plan) == (count + 1 if strategy == "rolling" else 2 * count)
    assert all(step.new + step.old >= count for step in plan)


def test_steps_by_example() -> None:
    """As they are written down in the README."""
    assert steps("rolling", 2) == (Step(1, 2, 50), Step(2, 1, 100))
    assert steps("canary", 2, (10, 50)) == (Step(1, 2, 10), Step(1, 2, 50), Step(2, 2, 100))
    assert steps("blue-green", 2) == (Step(2, 2, 0), Step(2, 2, 100))
    with pytest.raises(ValueError, match="hope"):
        steps("hope", 2)


@pytest.mark.parametrize("share", [0, 1, 10, 50, 99, 100])
@pytest.mark.parametrize(("new", "old"), [(1, 1), (1, 3), (3, 2), (2, 15)])
def test_weights_make_the_share(share: int, new: int, old: int) -> None:
    """However many instances a release has, they get its share together, each the same part of it."""
    made = weights([f"n{i}" for i in range(new)], [f"o{i}" for i in range(old)], share)
    of_new = sum(weight for name, weight in made.items() if name.startswith("n"))
    assert 100 * of_new == share * sum(made.values())
    assert len({weight for name, weight in made.items() if name.startswith("o")}) == 1
    assert weights([], ["o"], 0) == {"o": 100}


def test_file_of_releases_names_the_old_one_until_the_new_one_is_decided_on(tmp_path: Path) -> None:
    """Whoever reads it after a crash knows what to run, and that a rollout was not over."""
    path, new = tmp_path / "releases.json", Release("v2", (("PAYMESH_LINGER_MS", "1"),))
    releases = Releases(path)
    assert (releases.of("payment"), releases.unfinished) == (BASE, frozenset())
    releases.begin("payment")
    assert (Releases(path).of("payment"), Releases(path).unfinished) == (BASE, frozenset({"payment"}))
    releases.decide("payment", new)
    assert (Releases(path).of("payment"), Releases(path).unfinished) == (new, frozenset({"payment"}))
    releases.migrate("payment")
    assert Releases(path).migrated == {"payment"}
    releases.end("payment")
    assert (Releases(path).of("payment"), Releases(path).unfinished) == (new, frozenset())
    assert path.stat().st_mode & 0o777 == 0o600


def test_release_whose_tree_is_gone_is_said(tmp_path: Path) -> None:
    """3 with the way out, instead of a service that cannot start."""
    releases = Releases(tmp_path / "releases.json")
    releases.decide("payment", Release("v2", (), str(tmp_path / "gone")))
    with pytest.raises(CommandError, match="v2 of payment") as refused:
        Releases(tmp_path / "releases.json")
    assert refused.value.code is Exit.BAD_INPUT

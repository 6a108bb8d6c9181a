"""Leases with their health, and versions of entries."""

from __future__ import annotations

import pytest

from services.config.domain import (
    CHECK_S,
    DRAIN_S,
    LEASE_S,
    RECHECK_S,
    RECHECKS,
    SILENCES_MAX,
    Answer,
    Entry,
    Health,
    Lease,
    Name,
    Register,
    SetConfig,
    granted,
    own,
    recovered,
)
from services.kernel.errors import DomainError

NAME = Name("payment", "payment-1")


def _failed(lease: Lease, times: int) -> Lease:
    for _ in range(times):
        lease = lease.checked(Answer.REFUSES)
    return lease


def test_lease_is_routable_only_after_a_check_was_passed() -> None:
    """A registration proves that a process began, not that it serves."""
    lease = granted(NAME, "a:1", 0.0)
    assert not lease.routable(0.0)
    assert lease.health is Health.UNHEALTHY
    assert lease.checked(Answer.SERVES).routable(0.0)


def test_healthy_instance_survives_one_failure_and_not_two() -> None:
    """Hysteresis: two failures in a row take it out, one success brings it back and forgets them."""
    healthy = granted(NAME, "a:1", 0.0).checked(Answer.SERVES)
    once = _failed(healthy, 1)
    assert once.healthy
    assert _failed(once.checked(Answer.SERVES), 1).healthy
    twice = _failed(healthy, 2)
    assert not twice.healthy
    assert twice.checked(Answer.SERVES).healthy


def test_silent_instance_is_given_more_time_than_one_that_refuses() -> None:
    """Busy is not down; silence for long is, and a refusal after silences counts them."""
    lease = granted(NAME, "a:1", 0.0).checked(Answer.SERVES)
    for _ in range(SILENCES_MAX - 1):
        lease = lease.checked(Answer.SILENCE)
    assert lease.healthy
    assert not lease.checked(Answer.SILENCE).healthy
    assert not lease.checked(Answer.REFUSES).healthy


def test_recovered_instance_is_out_after_one_failure() -> None:
    """After a restart of config the benefit of the doubt is one check long."""
    lease = recovered(NAME, "a:1", 0.0)
    assert lease.routable(0.0)
    assert not _failed(lease, 1).routable(0.0)


def test_lease_ends_unless_renewed() -> None:
    """15 s after the last renewal the instance is not known any more."""
    lease = granted(NAME, "a:1", 0.0).checked(Answer.SERVES)
    renewed = lease.renewed("a:1", 10.0)
    assert not lease.routable(LEASE_S)
    assert renewed.routable(LEASE_S)
    assert not renewed.alive(10.0 + LEASE_S)


@pytest.mark.parametrize("moved", ["address", "drained", "ended"])
def test_instance_that_comes_anew_proves_its_health_anew(moved: str) -> None:
    """Another address, or a registration after it was taken out or forgotten, is a new process."""
    lease = granted(NAME, "a:1", 0.0).checked(Answer.SERVES)
    again = {
        "address": lease.renewed("a:2", 1.0),
        "drained": lease.taken_out(1.0).renewed("a:1", 2.0),
        "ended": lease.renewed("a:1", LEASE_S + 1),
    }[moved]
    assert not again.healthy
    assert not again.draining


def test_instance_taken_out_gets_no_calls_and_is_listed_a_while() -> None:
    """Draining: callers leave it at once, it stays visible while it finishes; a second time prolongs nothing."""
    out = granted(NAME, "a:1", 0.0).checked(Answer.SERVES).taken_out(1.0)
    assert out.health is Health.DRAINING
    assert not out.routable(1.0)
    assert out.alive(DRAIN_S)
    assert out.taken_out(5.0) is out
    assert not out.alive(1.0 + DRAIN_S)


def test_own_instance_is_always_there() -> None:
    """While config can say so, it is there."""
    assert own(Name("config", "config-1"), "a:1").routable(1e9)


def test_pace_of_checks_is_quick_where_something_may_change_soon() -> None:
    """Healthy: every 2 s; new or just failed: quickly; down for long: every 2 s again."""
    new = granted(NAME, "a:1", 0.0)
    healthy = new.checked(Answer.SERVES)
    assert (new.check_after, healthy.check_after) == (RECHECK_S, CHECK_S)
    assert _failed(healthy, 1).check_after == RECHECK_S
    assert _failed(healthy, RECHECKS + 1).check_after == CHECK_S


def test_service_registers_itself_alone() -> None:
    """The certificate says who asks, not the request."""
    Register(NAME, "a:1", "payment", "m").check()
    with pytest.raises(DomainError) as refused:
        Register(NAME, "a:1", "order", "m").check()
    assert refused.value.reason == "CALLER_NOT_ALLOWED"
    assert refused.value.metadata == {"caller": "order", "method": "m"}


def test_entry_counts_its_changes() -> None:
    """A new value is a new version; the same value changes nothing, whatever version was expected."""
    first = SetConfig("a.b", "1", 0, 7).applied(None, 100)
    assert first == Entry("a.b", "1", 1, 7, 100)
    assert SetConfig("a.b", "2", 1, 8).applied(first, 200) == Entry("a.b", "2", 2, 8, 200)
    assert SetConfig("a.b", "1", 5, 8).applied(first, 200) is first


def test_change_that_builds_on_another_version_is_refused() -> None:
    """Somebody else was faster: the present version is told."""
    present = Entry("a.b", "1", 3, 7, 100)
    with pytest.raises(DomainError) as refused:
        SetConfig("a.b", "2", 2, 8).applied(present, 200)
    assert refused.value.reason == "CONFIG_VERSION_CONFLICT"
    assert refused.value.metadata == {"key": "a.b", "version": "3"}
    with pytest.raises(DomainError):
        SetConfig("c.d", "2", 1, 8).applied(None, 200)

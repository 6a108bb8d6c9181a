"""Rules of accounts, sessions and roles."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.kernel.ids import SHARDS
from services.user import states
from services.user.domain import (
    ROLES,
    LockPolicy,
    Session,
    SessionPolicy,
    User,
    check_roles,
    refresh_hash,
    scopes_of,
    shard_for,
)
from services.user.domain.roles import CUSTOMER, OPERATOR, SUPPORT

NOW = 1_800_000_000_000
LOCK = LockPolicy(failures_max=5, lock_ms=900_000)
POLICY = SessionPolicy(access_ms=900_000, idle_ms=1_800_000, life_ms=43_200_000)


def account(**changed: object) -> User:
    """An account, as it was just made."""
    user = User(7, "alice", "a@example.com", "", states.ACTIVE, (CUSTOMER,), "hash", 0, 0, 1, NOW, NOW)
    for name, value in changed.items():
        setattr(user, name, value)
    return user


def test_operator_has_every_scope_of_the_contract() -> None:
    """A scope that the contract gains is the operator's in the same change."""
    assert ROLES[OPERATOR] == set(contract().scopes)


def test_roles_give_no_scope_that_the_contract_does_not_know() -> None:
    """No role promises what no method asks for; a customer has none, support reads alone."""
    assert frozenset().union(*ROLES.values()) <= set(contract().scopes)
    assert ROLES[CUSTOMER] == frozenset()
    assert all(scope.endswith(":read") for scope in ROLES[SUPPORT])


def test_roles_are_refused_when_one_is_unknown() -> None:
    """The refusal names the role; known ones come sorted, each once."""
    assert check_roles([SUPPORT, CUSTOMER, SUPPORT]) == (CUSTOMER, SUPPORT)
    with pytest.raises(DomainError) as caught:
        check_roles([SUPPORT, "emperor"])
    assert (caught.value.reason, caught.value.metadata) == ("ROLE_UNKNOWN", {"role": "emperor"})


def test_scopes_of_several_roles_are_joined() -> None:
    """A role of a later version gives nothing here, and takes nothing away."""
    assert scopes_of([CUSTOMER, SUPPORT, "of_a_later_version"]) == ROLES[SUPPORT]


@given(st.lists(st.booleans(), max_size=40))
def test_account_is_locked_by_five_failures_in_a_row(outcomes: list[bool]) -> None:
    """For every history: locked exactly when the last five since a success or a lock were failures."""
    user, row = account(), 0
    for right in outcomes:
        if right:
            user.log_in("s", "", NOW)
            row = 0
        else:
            user.fail(LOCK, NOW)
            row += 1
        assert (user.locked_until_ms > NOW) == (row == 5)
        if row == 5:
            user.locked_until_ms, row = 0, 0  # fifteen minutes pass


def test_lock_says_how_long_it_lasts() -> None:
    """Seconds are rounded up, so that a retry after them is let in; at the end it is open."""
    user = account(locked_until_ms=NOW + 1_001)
    with pytest.raises(DomainError) as caught:
        user.check_unlocked(NOW)
    assert caught.value.metadata == {"retry_after_s": "2"}
    user.check_unlocked(NOW + 1_001)


def test_update_says_nothing_when_nothing_is_different() -> None:
    """A repeat of an update makes no event, so consumers see no change that was none."""
    user = account()
    assert user.update(email="a@example.com", phone="", roles=(CUSTOMER,), now_ms=NOW + 1) is None
    assert (user.version, user.update_ms) == (1, NOW)
    event = user.update(phone="+8613800000000", now_ms=NOW + 2)
    assert event is not None
    assert (event.version, event.phone, user.update_ms) == (2, "+8613800000000", NOW + 2)


def test_profile_is_of_its_moment() -> None:
    """A later change of the account does not reach an answer that was given."""
    user = account()
    shown = user.profile()
    user.update(phone="+8613800000000", now_ms=NOW)
    assert shown.phone == ""


def test_secrets_and_personal_data_are_not_in_a_repr() -> None:
    """What is logged by accident says nothing."""
    shown = repr(account(password_hash="$argon2id$secret", phone="+8613800000000"))
    assert "argon2id" not in shown
    assert "example.com" not in shown
    assert "+86138" not in shown


def test_session_slides_but_not_beyond_its_life() -> None:
    """Each refresh gives another 30 minutes; after twelve hours it ends whatever happens."""
    session = Session("s", 7, NOW, 0)
    session.slide(POLICY, NOW)
    assert session.is_live(NOW + POLICY.idle_ms - 1)
    assert not session.is_live(NOW + POLICY.idle_ms)
    late = NOW + POLICY.life_ms - 1
    session.slide(POLICY, late)
    assert session.expire_ms == NOW + POLICY.life_ms


def test_session_ends_once() -> None:
    """The first reason stays; an ended session is not live, whatever its time."""
    session = Session("s", 7, NOW, NOW + 1000)
    assert session.end("logout", NOW)
    assert not session.end("new_password", NOW + 1)
    assert (session.end_reason, session.is_live(NOW)) == ("logout", False)


def test_shard_is_the_same_for_every_spelling_and_spread() -> None:
    """Case does not matter, and ten thousand names reach every part of the range."""
    assert shard_for("Alice") == shard_for("aLICE")
    tenths = Counter(shard_for(f"user{i}") * 10 // SHARDS for i in range(10_000))
    assert set(tenths) == set(range(10))
    assert max(tenths.values()) < 1_200


def test_refresh_token_is_kept_as_its_hash() -> None:
    """64 hexadecimal digits, of which the token cannot be told."""
    assert refresh_hash("token") == "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"

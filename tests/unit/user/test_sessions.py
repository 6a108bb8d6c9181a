"""LoginUser, RefreshSession, LogoutUser, signing keys over fakes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.user import states, usecases
from services.user.domain import UserLogin, refresh_hash
from services.user.usecases import Granted, LogoutUser, RefreshSession
from tests.fakes.user import MINUTE, FakeSigner, World

PASSWORD = "a password"


def caller(subject: int = 0, session_id: str = "", deadline: float = 1e12) -> Caller:
    """Who asks."""
    return Caller(subject, frozenset(), session_id, deadline, client_ip="192.0.2.1")


def attempt(world: World, password: str = PASSWORD, name: str = "alice") -> str:
    """Try to log in; returns the reason of the refusal, or ""."""
    return reasons(usecases.login_users(world.ports, [usecases.check_password(world.ports, caller(), name, password)]))[
        0
    ]


def log_in(world: World) -> Granted:
    """Begin a session."""
    return granted(
        usecases.login_users(world.ports, [usecases.check_password(world.ports, caller(), "alice", PASSWORD)])
    )


def refresh(world: World, *tokens: str) -> Sequence[Granted | DomainError]:
    """Refresh in one batch."""
    return usecases.refresh_sessions(world.ports, [RefreshSession(refresh_hash(token)) for token in tokens])


def granted(outcomes: Sequence[Granted | DomainError]) -> Granted:
    """The one outcome, which is a success."""
    (outcome,) = outcomes
    assert isinstance(outcome, Granted), outcome
    return outcome


def reasons(outcomes: Sequence[object]) -> list[str]:
    """Reason of each refusal, "" for what succeeded."""
    return [outcome.reason if isinstance(outcome, DomainError) else "" for outcome in outcomes]


def test_login_begins_a_session() -> None:
    """By name or address of any case: a session of 30 minutes, its token hashed, its event, both told to Redis."""
    world = World()
    user = world.register()
    for name in ("alice", "ALICE", "Alice@Example.COM"):
        assert attempt(world, name=name) == ""
    (session, *_), (token, *_) = world.store.rows.sessions.values(), world.store.rows.tokens.values()
    assert (session.user_id, session.expire_ms) == (user.id, world.clock.ms + 30 * MINUTE)
    assert token.token_hash == refresh_hash("refresh-token-0001")
    events = [e for e in world.store.rows.events if isinstance(e, UserLogin)]
    assert [(e.version, e.client_ip) for e in events] == [(2, "192.0.2.1"), (3, "192.0.2.1"), (4, "192.0.2.1")]
    assert events[0].session_id == session.id
    assert world.cache.sessions == {e.session_id: True for e in events}


def test_login_takes_as_long_for_a_name_that_nobody_has() -> None:
    """The password is verified against a hash of nobody's, and the refusal is the same."""
    world = World()
    world.register()
    assert attempt(world, name="nobody") == attempt(world, "wrong") == "CREDENTIALS_INVALID"
    assert world.passwords.verified == 2


def test_login_locks_after_five_failures_in_a_row() -> None:
    """The right password is refused too, for 15 minutes; a success in between begins the row anew."""
    world = World()
    world.register()
    assert [attempt(world, "wrong") for _ in range(4)] + [attempt(world)] == ["CREDENTIALS_INVALID"] * 4 + [""]
    assert [attempt(world, "wrong") for _ in range(5)] == ["CREDENTIALS_INVALID"] * 5
    assert attempt(world) == "ACCOUNT_LOCKED"
    world.clock.ms += 15 * MINUTE - 1
    assert attempt(world) == "ACCOUNT_LOCKED"
    world.clock.ms += 1
    assert attempt(world) == ""


def test_login_that_was_guessed_side_by_side_is_locked_too() -> None:
    """Twenty guesses that were all checked before any was counted: five tell something, the right one comes too late."""
    world = World()
    world.register()
    guesses = [usecases.check_password(world.ports, caller(), "alice", f"guess {i}") for i in range(19)]
    right = usecases.check_password(world.ports, caller(), "alice", PASSWORD)
    outcomes = usecases.login_users(world.ports, [*guesses, right])
    assert reasons(outcomes) == ["CREDENTIALS_INVALID"] * 5 + ["ACCOUNT_LOCKED"] * 15
    assert world.store.rows.sessions == {}


def test_login_hashes_nothing_for_a_locked_account_or_a_caller_who_is_gone() -> None:
    """A flood of guesses costs no argon2."""
    world = World()
    world.register()
    for _ in range(5):
        attempt(world, "wrong")
    before = world.passwords.verified
    assert attempt(world) == "ACCOUNT_LOCKED"
    with pytest.raises(DomainError):
        usecases.check_password(world.ports, caller(deadline=0.0), "alice", PASSWORD)
    assert world.passwords.verified == before


@pytest.mark.parametrize("status", [states.INACTIVE, states.SUSPENDED])
def test_login_says_that_an_account_is_not_active_only_to_who_knows_its_password(status: str) -> None:
    """Others learn nothing."""
    world = World()
    user = world.register()
    world.store.rows.users[user.id].status = status
    assert attempt(world, "wrong") == "CREDENTIALS_INVALID"
    assert attempt(world) == "ACCOUNT_NOT_ACTIVE"


def test_login_is_refused_when_the_password_was_changed_since_the_check() -> None:
    """The old one does not begin a session any more, and nothing is counted."""
    world = World()
    user = world.register()
    checked = usecases.check_password(world.ports, caller(), "alice", PASSWORD)
    world.store.rows.users[user.id].password_hash = "argon:another"
    assert reasons(usecases.login_users(world.ports, [checked])) == ["CREDENTIALS_INVALID"]
    assert world.store.rows.users[user.id].failed_logins == 0


def test_login_makes_an_old_hash_stronger() -> None:
    """Parameters that were raised reach each account at its next log-in."""
    world = World()
    user = world.register()
    world.passwords.prefix = "stronger:"
    assert attempt(world) == ""
    assert world.store.rows.users[user.id].password_hash == f"stronger:{PASSWORD}"
    assert attempt(world) == ""


def test_tokens_carry_what_the_contract_says() -> None:
    """Issuer, audience, subject, scopes, session and times in seconds."""
    world = World()
    user = world.register(roles=("support", "customer"))
    given = log_in(world)
    tokens = usecases.issue_tokens(world.ports, given)
    (claims,) = world.signer.claims
    now_s = world.clock.ms // 1000
    scope = "balance:read notifications:read orders:read payments:read risk:read users:read"
    assert claims.pop("jti") != given.session_id
    assert claims == {"iss": "paymesh", "aud": "paymesh-api", "sub": str(user.id), "scope": scope, "sid": given.session_id,
                      "iat": now_s, "exp": now_s + 900}  # fmt: skip
    assert (tokens.access_token, tokens.refresh_token, tokens.expires_in_s) == ("jwt-1", given.refresh_token, 900)


def test_refresh_gives_the_next_token_and_slides_the_session() -> None:
    """Scopes are those of now; the session lasts another 30 minutes."""
    world = World()
    user = world.register()
    first = log_in(world)
    usecases.set_user_roles(world.ports, [usecases.SetUserRoles(user.id, ("support",))])
    world.clock.ms += 20 * MINUTE
    second = granted(refresh(world, first.refresh_token))
    assert second.session_id == first.session_id
    assert second.refresh_token != first.refresh_token
    assert "users:read" in second.profile.scopes
    assert world.store.rows.sessions[first.session_id].expire_ms == world.clock.ms + 30 * MINUTE
    assert [t.used_ms for t in world.store.rows.tokens.values()] == [world.clock.ms, 0]


@pytest.mark.parametrize("together", [True, False])
def test_refresh_token_that_comes_twice_ends_the_session(together: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """In one batch or later: the session and its newest token end, and every service hears of it."""
    world = World()
    world.register()
    first = log_in(world)
    if together:
        new, again = refresh(world, first.refresh_token, first.refresh_token)
    else:
        (new,) = refresh(world, first.refresh_token)
        (again,) = refresh(world, first.refresh_token)
    assert isinstance(new, Granted)
    assert reasons([again, *refresh(world, new.refresh_token)]) == ["REFRESH_TOKEN_INVALID"] * 2
    assert world.store.rows.sessions[first.session_id].end_reason == "token_reused"
    assert set(world.revocations.until) == {first.session_id}
    assert world.cache.sessions == {first.session_id: False}


def test_refresh_is_refused_when_the_token_is_unknown_or_the_session_expired() -> None:
    """Neighbours in the batch are served; an expired session that is asked for is not ended by it."""
    world = World()
    world.register()
    old = log_in(world)
    world.clock.ms += 30 * MINUTE
    new = log_in(world)
    assert reasons(refresh(world, "nobody's token, ever", old.refresh_token, new.refresh_token)) == [
        "REFRESH_TOKEN_INVALID",
        "REFRESH_TOKEN_INVALID",
        "",
    ]


def test_refresh_ends_the_session_when_the_account_is_suspended() -> None:
    """The refusal says so, and the session does not come back with the account."""
    world = World()
    user = world.register()
    given = log_in(world)
    world.store.rows.users[user.id].status = states.SUSPENDED
    assert reasons(refresh(world, given.refresh_token)) == ["ACCOUNT_NOT_ACTIVE"]
    world.store.rows.users[user.id].status = states.ACTIVE
    assert reasons(refresh(world, given.refresh_token)) == ["REFRESH_TOKEN_INVALID"]


def test_logout_ends_the_callers_session_alone() -> None:
    """A repeat, another's session and one that never was are SESSION_REVOKED and change nothing."""
    world = World()
    user, given = world.register(), None
    given, other = log_in(world), log_in(world)
    ours = LogoutUser(caller(user.id, given.session_id))
    foreign = LogoutUser(caller(user.id + 1, other.session_id))
    outcomes = usecases.logout_users(world.ports, [ours, ours, foreign, LogoutUser(caller(user.id, "never"))])
    assert reasons(outcomes) == ["", "SESSION_REVOKED", "SESSION_REVOKED", "SESSION_REVOKED"]
    assert world.revocations.until == {given.session_id: world.clock.ms + 15 * MINUTE}
    assert reasons(refresh(world, given.refresh_token, other.refresh_token)) == ["REFRESH_TOKEN_INVALID", ""]


@pytest.mark.parametrize("lost", [False, True])
def test_reads_are_refused_when_the_session_ended(lost: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Whether Redis remembers it or was lost, and although the access token has not expired."""
    world = World()
    user = world.register()
    given = log_in(world)
    who = caller(user.id, given.session_id)
    if lost:
        world.cache.lose()
    assert usecases.get_user(world.ports, who, user.id).id == user.id
    assert world.cache.sessions == {given.session_id: True}
    usecases.logout_users(world.ports, [LogoutUser(who)])
    if lost:
        world.cache.lose()
    with pytest.raises(DomainError) as caught:
        usecases.get_user(world.ports, who, user.id)
    assert caught.value.reason == "SESSION_REVOKED"


def test_revocations_are_told_again_when_redis_lost_them() -> None:
    """Only those that a token can still be used of; what is known is not told twice."""
    world = World()
    user = world.register()
    old, new = log_in(world), log_in(world)
    usecases.logout_users(world.ports, [LogoutUser(caller(user.id, old.session_id))])
    world.clock.ms += 15 * MINUTE
    usecases.logout_users(world.ports, [LogoutUser(caller(user.id, new.session_id))])
    assert usecases.remind_revocations(world.ports) == 0
    world.revocations.until.clear()
    assert usecases.remind_revocations(world.ports) == 1
    assert world.revocations.until == {new.session_id: world.clock.ms + 15 * MINUTE}


def test_sessions_are_forgotten_a_week_after_they_expired() -> None:
    """With their tokens; later ones stay."""
    world = World()
    world.register()
    log_in(world)
    world.clock.ms += 7 * 24 * 60 * MINUTE + 30 * MINUTE + 1
    kept = log_in(world)
    assert usecases.forget_sessions(world.ports) == 1
    assert set(world.store.rows.sessions) == {kept.session_id}
    assert [t.session_id for t in world.store.rows.tokens.values()] == [kept.session_id]


def test_signing_key_is_one_when_two_instances_start_at_once() -> None:
    """The second finds the first one's and uses it; a restart makes no other."""
    world = World()
    usecases.open_keys(world.ports)
    other = World(store=world.store, signer=FakeSigner("late"))
    other.store.keep_signing_key(other.signer.make(1, 0))
    usecases.open_keys(other.ports)
    assert (
        [k.kid for k in usecases.get_jwks(other.ports)] == [k.kid for k in usecases.get_jwks(world.ports)] == ["key-1"]
    )

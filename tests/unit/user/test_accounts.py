"""RegisterUser, UpdateUser, SetUserRoles, GetUser over fakes."""

from __future__ import annotations

import pytest

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.user import usecases
from services.user.domain import Profile, UserCreated, UserUpdated
from services.user.usecases import CheckedPassword, RegisterUser, SetUserRoles, UpdateUser
from tests.fakes.user import MINUTE, World


def registration(name: str, email: str = "", key: str = "", fingerprint: bytes = b"f") -> RegisterUser:
    """A wish for an account."""
    kept = IdempotencyKey(Scope(0, "RegisterUser", key), fingerprint) if key else None
    return RegisterUser(kept, name, email or f"{name}@example.com", "", "argon:a password")


def caller(subject: int, scopes: str = "", session_id: str = "") -> Caller:
    """Who asks."""
    return Caller(subject, frozenset(scopes.split()), session_id, deadline=1e12)


def update(
    who: Caller,
    user_id: int,
    email: str | None = None,
    phone: str | None = None,
    password: CheckedPassword | None = None,
) -> UpdateUser:
    """A wish for a change."""
    return UpdateUser(who, user_id, email, phone, password)


def reasons(outcomes: list[object]) -> list[str]:
    """Reason of each refusal, "" for what succeeded."""
    return [outcome.reason if isinstance(outcome, DomainError) else "" for outcome in outcomes]


def test_register_makes_a_customer_with_its_event() -> None:
    """The account is there, its event is the first of it, and the relay is told."""
    world = World()
    answer = usecases.register_users(world.ports, [registration("alice")])[0]
    (user,) = world.store.rows.users.values()
    assert answer == str(user.id).encode()
    assert (user.roles, user.version, user.password_hash) == (("customer",), 1, "argon:a password")
    (event,) = world.store.rows.events
    assert event == UserCreated(user.id, 1, world.clock.ms, "alice", "alice@example.com", "")
    assert world.nudges == 1


def test_register_refuses_item_by_item_whatever_the_case() -> None:
    """Neighbours of one batch and accounts of before count alike; those who are refused harm nobody."""
    world = World()
    world.register("alice")
    outcomes = usecases.register_users(
        world.ports,
        [
            registration("ALICE", "other@example.com"),
            registration("bob", "Bob@Example.com"),
            registration("BOB", "bob2@example.com"),
            registration("carol", "bOB@example.COM"),
            registration("dave"),
        ],
    )
    assert reasons(list(outcomes)) == ["USERNAME_TAKEN", "", "USERNAME_TAKEN", "EMAIL_TAKEN", ""]
    assert sorted(u.username for u in world.store.rows.users.values()) == ["alice", "bob", "dave"]


def test_register_answers_a_repeat_with_the_first_answer() -> None:
    """In the batch and after it; another request under the key is refused, and so is a repeat of a refusal."""
    world = World()
    first, second = usecases.register_users(
        world.ports, [registration("alice", key="key-1"), registration("alice", key="key-1")]
    )
    assert first == second
    again, other = usecases.register_users(
        world.ports, [registration("alice", key="key-1"), registration("alice", key="key-1", fingerprint=b"g")]
    )
    assert again == first
    assert reasons([other]) == ["IDEMPOTENCY_KEY_REUSED"]
    taken = usecases.register_users(world.ports, [registration("alice", key="key-2")])
    world.store.rows.users.clear()
    assert reasons(list(usecases.register_users(world.ports, [registration("alice", key="key-2")]))) == reasons(
        list(taken)
    )
    assert len(world.store.rows.events) == 1


def test_hashing_is_left_out_when_the_caller_is_gone() -> None:
    """Under a flood nobody's password is hashed whose deadline is over."""
    world = World()
    with pytest.raises(DomainError) as caught:
        usecases.hash_password(world.ports, "a password", deadline=world.clock.monotonic() - 1)
    assert caught.value.reason == "DEADLINE_EXCEEDED"


def test_update_changes_what_is_given() -> None:
    """Phone and address change, with one event each; a repeat makes none."""
    world = World()
    user = world.register()
    who = caller(user.id)
    outcomes = usecases.update_users(
        world.ports,
        [
            update(who, user.id, phone="+8613800000000"),
            update(who, user.id, email="New@example.com"),
            update(who, user.id, phone="+8613800000000"),
        ],
    )
    assert [p.email for p in outcomes if isinstance(p, Profile)] == [
        "alice@example.com",
        "New@example.com",
        "New@example.com",
    ]
    events = [e for e in world.store.rows.events if isinstance(e, UserUpdated)]
    assert [(e.version, e.email, e.phone) for e in events] == [
        (2, "alice@example.com", "+8613800000000"),
        (3, "New@example.com", "+8613800000000"),
    ]
    assert world.cache.profiles[user.id].version == 3


def test_update_refuses_an_address_of_another() -> None:
    """Also one that a neighbour takes in the same batch; one's own in another case is no conflict."""
    world = World()
    alice, bob = world.register("alice"), world.register("bob")
    outcomes = usecases.update_users(
        world.ports,
        [
            update(caller(bob.id), bob.id, email="ALICE@example.com"),
            update(caller(alice.id), alice.id, email="ALICE@example.com"),
            update(caller(alice.id), alice.id, email="third@example.com"),
            update(caller(bob.id), bob.id, email="Third@example.com"),
            update(caller(bob.id), 999, email="fourth@example.com"),
        ],
    )
    assert reasons(list(outcomes)) == ["EMAIL_TAKEN", "", "", "EMAIL_TAKEN", "USER_NOT_FOUND"]
    assert world.store.rows.users[bob.id].email == "bob@example.com"


def test_new_password_ends_all_other_sessions() -> None:
    """The session in which it was changed goes on; the others end everywhere, at once."""
    world = World()
    user = world.register(password="old password")
    sessions = [log_in(world, "alice", "old password").session_id for _ in range(3)]
    who = caller(user.id, session_id=sessions[1])
    wish = usecases.NewPassword(user.id, "old password", "new password")
    checked = usecases.check_new_password(world.ports, wish, deadline=1e12)
    assert reasons(list(usecases.update_users(world.ports, [update(who, user.id, password=checked)]))) == [""]
    ended = {s.id: s.end_reason for s in world.store.rows.sessions.values() if s.ended_ms}
    assert ended == {sessions[0]: "new_password", sessions[2]: "new_password"}
    assert world.revocations.until == dict.fromkeys(ended, world.clock.ms + 15 * MINUTE)
    assert world.cache.sessions == {sessions[0]: False, sessions[1]: True, sessions[2]: False}
    assert world.store.rows.users[user.id].password_hash == "argon:new password"


def test_new_password_needs_the_current_one() -> None:
    """A wrong one counts towards the lock, so that a stolen token is no way to guess; then the right one is refused too."""
    world = World()
    user = world.register(password="old password")
    wrong = usecases.check_new_password(
        world.ports, usecases.NewPassword(user.id, "wrong", "new password"), deadline=1e12
    )
    right = usecases.check_new_password(
        world.ports, usecases.NewPassword(user.id, "old password", "new one"), deadline=1e12
    )
    items = [*[update(caller(user.id), user.id, password=wrong)] * 5, update(caller(user.id), user.id, password=right)]
    assert reasons(list(usecases.update_users(world.ports, items))) == ["CREDENTIALS_INVALID"] * 5 + ["ACCOUNT_LOCKED"]
    assert world.store.rows.users[user.id].password_hash == "argon:old password"
    assert [e.version for e in world.store.rows.events] == [1]


def test_new_password_is_refused_when_another_was_set_since_the_check() -> None:
    """The check was against a hash that is not the account's any more; nothing is counted."""
    world = World()
    user = world.register(password="old password")
    checks = [
        usecases.check_new_password(world.ports, usecases.NewPassword(user.id, "old password", wanted), deadline=1e12)
        for wanted in ("new password one", "new password two")
    ]
    outcomes = usecases.update_users(world.ports, [update(caller(user.id), user.id, password=c) for c in checks])
    assert reasons(list(outcomes)) == ["", "CREDENTIALS_INVALID"]
    assert world.store.rows.users[user.id].password_hash == "argon:new password one"
    assert world.store.rows.users[user.id].failed_logins == 0


def test_operator_who_changes_anothers_password_ends_all_its_sessions() -> None:
    """The operator's own session is not the account's."""
    world = World()
    user = world.register(password="old password")
    session_id = log_in(world, "alice", "old password").session_id
    checked = CheckedPassword(user.password_hash, "argon:new password")
    usecases.update_users(world.ports, [update(caller(5, "users:write", session_id), user.id, password=checked)])
    assert world.store.rows.sessions[session_id].end_reason == "new_password"


def test_roles_are_set_item_by_item() -> None:
    """The event tells the roles; unknown roles and users are refused; a repeat is no change."""
    world = World()
    user = world.register()
    outcomes = usecases.set_user_roles(
        world.ports,
        [
            SetUserRoles(user.id, ("support", "customer")),
            SetUserRoles(user.id, ("customer", "support")),
            SetUserRoles(user.id, ("emperor",)),
            SetUserRoles(999, ("customer",)),
        ],
    )
    assert reasons(list(outcomes)) == ["", "", "ROLE_UNKNOWN", "USER_NOT_FOUND"]
    assert world.store.rows.users[user.id].roles == ("customer", "support")
    assert [(e.version, e.roles) for e in world.store.rows.events if isinstance(e, UserUpdated)] == [
        (2, ("customer", "support"))
    ]
    assert "users:read" in (world.cache.permissions(user.id) or ())


def test_get_user_is_answered_when_the_cache_was_lost() -> None:
    """From SQL, and remembered again."""
    world = World()
    user = world.register()
    world.cache.lose()
    assert usecases.get_user(world.ports, caller(user.id), user.id) == user.profile()
    assert world.cache.profiles[user.id] == user.profile()
    with pytest.raises(DomainError) as caught:
        usecases.get_user(world.ports, caller(999), 999)
    assert caught.value.reason == "USER_NOT_FOUND"


@pytest.mark.parametrize("lost", [False, True])
def test_permission_is_gone_when_it_was_withdrawn_since_the_token(lost: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Whether Redis remembers it or was lost: another's data is refused at once, one's own is not."""
    world = World()
    alice, helper = world.register("alice"), world.register("helper", roles=("operator",))
    who = caller(helper.id, "users:read users:write")
    assert usecases.get_user(world.ports, who, alice.id).id == alice.id
    usecases.require(world.ports, who, "users:write")
    usecases.set_user_roles(world.ports, [SetUserRoles(helper.id, ("customer",))])
    if lost:
        world.cache.lose()
    with pytest.raises(DomainError) as other:
        usecases.get_user(world.ports, who, alice.id)
    with pytest.raises(DomainError) as write:
        usecases.require(world.ports, who, "users:write")
    assert (other.value.reason, write.value.reason) == ("NOT_OWNER", "SCOPE_MISSING")
    assert usecases.get_user(world.ports, who, helper.id).id == helper.id


def test_operator_is_made_once() -> None:
    """The second start finds the account and leaves it as it is."""
    world = World()
    command = usecases.new_operator(world.ports, "root", "a long password")
    assert command is not None
    assert reasons(list(usecases.register_users(world.ports, [command]))) == [""]
    assert usecases.new_operator(world.ports, "ROOT", "another password") is None
    (user,) = world.store.rows.users.values()
    assert (user.roles, user.password_hash) == (("operator",), "argon:a long password")


def log_in(world: World, name: str, password: str) -> usecases.Granted:
    """Begin a session."""
    checked = usecases.check_password(world.ports, caller(0), name, password)
    granted = usecases.login_users(world.ports, [checked])[0]
    assert isinstance(granted, usecases.Granted), granted
    return granted

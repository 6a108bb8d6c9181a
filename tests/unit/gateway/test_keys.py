"""API keys over the fake store and over SQLite: made, rotated, revoked, listed, forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from paymesh.gateway.v1 import gateway_service_pb2 as pb
from services.gateway import mapping, usecases
from services.gateway.domain import DAY_MS, Status
from services.gateway.store import SqlStore, metadata
from services.gateway.usecases import CreateApiKey, RevokeApiKey, RotateApiKey
from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.pages import Page
from services.platform.database import Database
from tests.fakes.gateway import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.gateway.domain import ApiKey

ANN, BOB = 42, 43
OWN = frozenset({"payments:read", "orders:read"})


@pytest.fixture(params=["fake", "sqlite"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keys]:
    if request.param == "fake":
        yield Keys()
        return
    database = Database(f"sqlite:///{tmp_path / 'gateway.db'}")
    with database.write() as connection:
        metadata.create_all(connection)
        connection.commit()
    yield Keys(SqlStore(database))
    database.stop()


def _caller(subject: int = ANN, scopes: frozenset[str] = OWN) -> Caller:
    return Caller(subject, scopes, "s", 0.0)


def _key(name: str, subject: int = ANN, method: str = "CreateApiKey") -> IdempotencyKey:
    return IdempotencyKey(Scope(subject, method, name), b"f" * 32)


def _create(
    keys: Keys, name: str = "first-key", *, caller: Caller | None = None, scopes: tuple[str, ...] = ()
) -> ApiKey:
    command = CreateApiKey(caller or _caller(), name, scopes, usecases.LIFETIME_DAYS, _key(name))
    (answer,) = usecases.create_api_keys(keys.ports, [command])
    if isinstance(answer, DomainError):
        raise answer
    return mapping.api_key_from(pb.CreateApiKeyResponse.FromString(answer).key)


def _rotate(keys: Keys, key_id: int, *, caller: Caller | None = None, overlap_s: int = 3600) -> ApiKey:
    who = caller or _caller()
    command = RotateApiKey(who, key_id, overlap_s, 30, _key(f"rotate-{key_id}", who.subject, "RotateApiKey"))
    (answer,) = usecases.rotate_api_keys(keys.ports, [command])
    if isinstance(answer, DomainError):
        raise answer
    return mapping.api_key_from(pb.RotateApiKeyResponse.FromString(answer).key)


def _listed(keys: Keys, user_id: int = ANN) -> list[ApiKey]:
    return list(usecases.list_api_keys(keys.ports, user_id, Page(20, ""))[0])


def _status(keys: Keys, key_id: int) -> Status:
    (key,) = (key for key in _listed(keys) if key.id == key_id)
    return key.status(keys.clock.now_ms())


def test_key_is_signed_with_its_owner_scopes_and_end(keys: Keys) -> None:
    """What is told is all claims; what is stored is all but the signature."""
    made = _create(keys, scopes=("payments:read",))
    claims = json.loads(usecases.signed(keys.ports, made))
    now_s = keys.clock.now_ms() // 1000
    assert claims == {
        "iss": "paymesh-keys",
        "aud": "paymesh-api",
        "sub": "42",
        "scope": "payments:read",
        "jti": str(made.id),
        "iat": now_s,
        "exp": now_s + 90 * 86_400,
    }
    assert _listed(keys) == [made]


def test_key_is_the_same_when_its_making_is_repeated(keys: Keys) -> None:
    """A repeat makes no second key, and what it is told can be signed again from what was kept."""
    first, again = _create(keys), _create(keys)
    assert first == again
    assert len(_listed(keys)) == 1
    assert usecases.signed(keys.ports, first) == usecases.signed(keys.ports, again)


def test_key_is_refused_when_it_would_have_more_than_its_owner(keys: Keys) -> None:
    """The scopes that are missing are named; nothing is made."""
    with pytest.raises(DomainError) as refused:
        _create(keys, scopes=("payments:read", "payments:refund"))
    assert (refused.value.reason, refused.value.metadata) == ("SCOPE_MISSING", {"scope": "payments:refund"})
    assert not _listed(keys)


def test_keys_are_limited_by_user_also_revoked_ones(keys: Keys) -> None:
    """The edge must know every revoked key: who makes and revokes them in turn comes to an end too."""
    made = [_create(keys, f"key-number-{n}") for n in range(usecases.keys.KEYS_MAX)]
    usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(), key.id) for key in made])
    with pytest.raises(DomainError, match="API_KEY_LIMIT_REACHED"):
        _create(keys, "one-too-many")
    assert _create(keys, "another-user", caller=_caller(BOB)).user_id == BOB
    keys.clock.ms += 91 * DAY_MS
    assert _create(keys, "after-they-ended").user_id == ANN


def test_rotated_key_is_taken_until_the_overlap_ends(keys: Keys) -> None:
    """The old key retires and is then refused; the new one has its name and scopes."""
    old = _create(keys, scopes=("orders:read",))
    new = _rotate(keys, old.id, overlap_s=3600)
    assert (new.name, new.scopes, new.user_id) == (old.name, old.scopes, old.user_id)
    assert new.id != old.id
    assert [key.replaced_by for key in _listed(keys)] == [0, new.id]
    assert _status(keys, old.id) is Status.RETIRING
    assert usecases.get_api_key_trust(keys.ports)[1] == []
    keys.clock.ms += 3_600_000
    assert _status(keys, old.id) is Status.REVOKED
    assert _status(keys, new.id) is Status.ACTIVE
    assert usecases.get_api_key_trust(keys.ports)[1] == [old.id]
    assert usecases.remind_revocations(keys.ports) == 1
    assert keys.revocations.told == {old.id}
    assert usecases.remind_revocations(keys.ports) == 0


@pytest.mark.parametrize("ended", ["rotated", "revoked", "expired"])
def test_only_an_active_key_is_rotated(keys: Keys, ended: str) -> None:
    """Each other status is a conflict that names it, and nothing is made."""
    old = _create(keys)
    if ended == "rotated":
        command = RotateApiKey(_caller(), old.id, 60, 30, _key("another-key", method="RotateApiKey"))
        usecases.rotate_api_keys(keys.ports, [command])
    elif ended == "revoked":
        usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(), old.id)])
    else:
        keys.clock.ms += 90 * DAY_MS
    before = _listed(keys)
    with pytest.raises(DomainError) as refused:
        _rotate(keys, old.id)
    status = {"rotated": "retiring"}.get(ended, ended)
    assert refused.value.reason == "API_KEY_STATUS_CONFLICT"
    assert refused.value.metadata == {"key_id": str(old.id), "status": status}
    assert _listed(keys) == before


def test_key_is_rotated_by_its_owner_alone_and_with_scopes_he_still_has(keys: Keys) -> None:
    """An operator gets nobody's key, and who lost a scope gets no key with it."""
    old = _create(keys, scopes=("orders:read",))
    with pytest.raises(DomainError, match="API_KEY_NOT_FOUND"):
        _rotate(keys, old.id, caller=_caller(BOB, OWN | {"keys:write"}))
    with pytest.raises(DomainError, match="SCOPE_MISSING"):
        _rotate(keys, old.id, caller=_caller(ANN, frozenset()))


def test_revoked_key_is_told_at_once_and_stays_revoked(keys: Keys) -> None:
    """Its owner or an operator may; others find nothing; a second time changes nothing."""
    key = _create(keys)
    (refused,) = usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(BOB), key.id)])
    assert isinstance(refused, DomainError)
    assert refused.reason == "API_KEY_NOT_FOUND"
    assert _status(keys, key.id) is Status.ACTIVE
    (first,) = usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(BOB, frozenset({"keys:write"})), key.id)])
    assert first == replace(key, revoke_ms=keys.clock.now_ms())
    keys.clock.ms += 5
    (second,) = usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(), key.id)])
    assert second == first
    assert keys.revocations.told == {key.id}
    assert usecases.get_api_key_trust(keys.ports)[1] == [key.id]


def test_retiring_key_is_revoked_before_its_overlap_ends(keys: Keys) -> None:
    """A revocation does not wait."""
    old = _create(keys)
    _rotate(keys, old.id)
    usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(), old.id)])
    assert _status(keys, old.id) is Status.REVOKED


def test_batch_of_two_rotations_of_one_key_makes_one(keys: Keys) -> None:
    """The second finds the key retiring."""
    old = _create(keys)
    both = [RotateApiKey(_caller(), old.id, 60, 30, _key(f"rotation-{n}", method="RotateApiKey")) for n in (1, 2)]
    first, second = usecases.rotate_api_keys(keys.ports, both)
    assert isinstance(first, bytes)
    assert isinstance(second, DomainError)
    assert second.reason == "API_KEY_STATUS_CONFLICT"
    assert len(_listed(keys)) == 2


def test_keys_are_listed_page_by_page_newest_first(keys: Keys) -> None:
    """One's own alone."""
    made = [_create(keys, f"key-number-{n}").id for n in range(3)]
    _create(keys, "of-another", caller=_caller(BOB))
    first, token = usecases.list_api_keys(keys.ports, ANN, Page(2, ""))
    assert [key.id for key in first] == [made[2], made[1]]
    assert token
    rest, end = usecases.list_api_keys(keys.ports, ANN, Page(2, str(made[1])))
    assert ([key.id for key in rest], end) == ([made[0]], "")


def test_keys_are_forgotten_a_while_after_their_end(keys: Keys) -> None:
    """Until then they are listed; the edge need not know them, for the token ended by itself."""
    key = _create(keys)
    usecases.revoke_api_keys(keys.ports, [RevokeApiKey(_caller(), key.id)])
    keys.clock.ms += 90 * DAY_MS
    assert usecases.get_api_key_trust(keys.ports)[1] == []
    assert usecases.forget_api_keys(keys.ports) == 0
    keys.clock.ms += 30 * DAY_MS + 1
    assert usecases.forget_api_keys(keys.ports) == 1
    assert _listed(keys) == []


def test_signing_key_is_made_once(keys: Keys) -> None:
    """A second start finds it."""
    usecases.open_keys(keys.ports)
    first = usecases.get_api_key_jwks(keys.ports)
    usecases.open_keys(keys.ports)
    assert len(first) == 1
    assert list(usecases.get_api_key_jwks(keys.ports)) == list(first)

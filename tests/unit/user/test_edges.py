"""Settings, mapping, hashes, keys and tokens: what stands at the edges of the user room."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from paymesh.user.v1 import user_event_pb2, user_pb2
from paymesh.user.v1 import user_service_pb2 as pb
from services.contract.load import contract
from services.kernel.caller import Caller
from services.platform import settings as platform_settings
from services.platform.interceptor import Call
from services.platform.masterkey import MasterKey, MasterKeyUnusable
from services.user import mapping, states
from services.user.adapters.passwords import Argon2Passwords
from services.user.adapters.tokens import Es256Signer, RandomSecrets
from services.user.domain import Profile, UserCreated, UserLogin, UserUpdated
from services.user.settings import Settings

NEEDED = {"PAYMESH_DATA": "data", "PAYMESH_LISTEN": "unix:user.sock"}
CLAIMS: dict[str, str | int] = {"sub": "7", "scope": ""}


def load(**environ: str) -> Settings:
    """Settings from an environment."""
    return platform_settings.load(Settings, {**NEEDED, **environ})


def test_settings_take_both_of_an_operator_or_neither() -> None:
    """Half of one is a fault that names both; every fault is told at once; the password is never shown."""
    assert load().admin_username == ""
    assert load(PAYMESH_ADMIN_USERNAME="root", PAYMESH_ADMIN_PASSWORD="long enough").admin_password == "long enough"
    for half in ({"PAYMESH_ADMIN_USERNAME": "root"}, {"PAYMESH_ADMIN_PASSWORD": "long enough"}):
        with pytest.raises(platform_settings.SettingsError) as caught:
            load(**half)
        assert len(caught.value.faults) == 1
        assert "set both, or neither" in caught.value.faults[0]
    with pytest.raises(platform_settings.SettingsError) as caught:
        load(PAYMESH_ADMIN_USERNAME="r@", PAYMESH_ADMIN_PASSWORD="short")
    assert len(caught.value.faults) == 2
    assert "short" not in caught.value.faults[1]
    assert "long enough" not in repr(load(PAYMESH_ADMIN_USERNAME="root", PAYMESH_ADMIN_PASSWORD="long enough"))


def profile(status: str = states.ACTIVE) -> Profile:
    """An account as it is shown."""
    return Profile(7, "alice", "a@example.com", "+8613800000000", status, ("customer",), 3, 1_000, 2_500)


@pytest.mark.parametrize("status", states.ALL)
def test_user_is_rendered_whole(status: str) -> None:
    """Every field of the contract has its value, in every state."""
    shown = mapping.user(profile(status))
    assert {f.name for f, _ in shown.ListFields()} == set(user_pb2.User.DESCRIPTOR.fields_by_name)
    assert user_pb2.User.Status.Name(shown.status) == f"STATUS_{status.upper()}"
    assert shown.update_time.ToMilliseconds() == 2_500


@pytest.mark.parametrize(
    ("happened", "kind"),
    [
        (UserCreated(7, 1, 1_500, "alice", "a@example.com", "+8613800000000"), user_event_pb2.UserCreated),
        (UserUpdated(7, 2, 1_500, "a@example.com", "+8613800000000", ("customer",)), user_event_pb2.UserUpdated),
        (UserLogin(7, 3, 1_500, "s", "192.0.2.1"), user_event_pb2.UserLogin),
    ],
)
def test_event_is_rendered_whole(happened: UserCreated | UserUpdated | UserLogin, kind: type) -> None:
    """Each event of the room becomes its message, with every field."""
    message = mapping.event(happened)
    assert isinstance(message, kind)
    assert {f.name for f, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert contract().events[message.DESCRIPTOR.full_name].service == "user"


def registering(password: str, key: str = "key-00001") -> tuple[Call, pb.RegisterUserRequest]:
    """A call of RegisterUser as the interceptor leaves it."""
    request = pb.RegisterUserRequest(username="alice", email="a@example.com", password=password)
    call = Call(contract().methods["/paymesh.user.v1.UserService/RegisterUser"], None, request, {}, frozenset())
    call.caller, call.idempotency_key = Caller(0, frozenset(), "", 0.0), key
    return call, request


def test_fingerprint_tells_passwords_apart_and_nothing_about_them(tmp_path: Path) -> None:
    """Same request, same fingerprint; another password, another; who has the database alone cannot compute any of them."""
    seal = MasterKey(tmp_path, "user").fingerprint
    commands = [
        mapping.register_user(*registering(p), "hash", seal) for p in ("password one", "password one", "password two")
    ]
    prints = [command.key.fingerprint for command in commands if command.key]
    assert prints[0] == prints[1] != prints[2]
    _, request = registering("password one")
    plain = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    assert plain not in prints
    assert hmac.digest(b"", plain, "sha256") not in prints
    without = mapping.register_user(*registering("password one", key=""), "hash", seal)
    assert without.key is None
    assert "password" not in repr(commands[0]).replace("password_hash", "")


def test_update_reads_what_is_given_and_what_is_emptied() -> None:
    """No field: it stays; an empty phone removes it; a new password is a wish of its own."""
    call, _ = registering("password one")
    command = mapping.update_user(call, pb.UpdateUserRequest(id=7, phone=""), None)
    assert (command.email, command.phone, command.password) == (None, "", None)
    assert mapping.new_password(pb.UpdateUserRequest(id=7, phone="")) is None
    wish = mapping.new_password(pb.UpdateUserRequest(id=7, password="new password", current_password="old"))
    assert wish is not None
    assert (wish.user_id, wish.current, wish.wanted) == (7, "old", "new password")
    assert "old" not in repr(wish)


def test_password_is_hashed_with_argon2id() -> None:
    """The right one fits, others and nobody's do not; weaker parameters are told."""
    passwords = Argon2Passwords(64, 1)
    stored = passwords.hash("pässwörd 密码")
    assert stored.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert passwords.hash("pässwörd 密码") != stored
    assert passwords.verify("pässwörd 密码", stored)
    assert not passwords.verify("passwörd 密码", stored)
    assert not passwords.verify("pässwörd 密码", None)
    assert not passwords.is_outdated(stored)
    assert Argon2Passwords(128, 1).is_outdated(stored)


def test_token_is_verified_with_the_published_key(tmp_path: Path) -> None:
    """ES256, the key found by its id; the id is the RFC 7638 thumbprint of what is published."""
    signer = Es256Signer(MasterKey(tmp_path, "user"))
    signer.load([signer.make(1, 0)])
    (public,) = signer.public_keys()
    published: dict[str, str | list[str]] = {
        "kty": "EC",
        "crv": "P-256",
        "x": public.x,
        "y": public.y,
        "kid": public.kid,
        "use": "sig",
        "alg": "ES256",
    }
    keys = KeySet.import_key_set({"keys": [published]})
    token = jwt.decode(signer.sign(CLAIMS), keys, algorithms=["ES256"])
    assert token.claims == CLAIMS
    assert token.header == {"alg": "ES256", "kid": public.kid, "typ": "JWT"}
    assert keys.keys[0].thumbprint() == public.kid


def test_signing_key_is_sealed_and_opens_only_with_its_master_key(tmp_path: Path) -> None:
    """The private half is not in what is stored; another instance with the same file signs with the same key."""
    signer = Es256Signer(MasterKey(tmp_path, "user"))
    key = signer.make(1, 0)
    assert b'"d"' not in key.sealed
    for each in (signer, Es256Signer(MasterKey(tmp_path, "user"))):
        each.load([key])
        assert each.public_keys() == (key.public,)
    with pytest.raises(MasterKeyUnusable, match="put that one back"):
        Es256Signer(MasterKey(tmp_path / "other", "user")).load([key])


def test_newest_key_signs_and_older_ones_stay_published(tmp_path: Path) -> None:
    """Tokens of before a new key are still verified."""
    signer = Es256Signer(MasterKey(tmp_path, "user"))
    first, second = signer.make(1, 0), signer.make(2, 0)
    signer.load([second, first])
    assert signer.public_keys() == (second.public, first.public)


def test_random_secrets_have_the_lengths_that_are_stored() -> None:
    """A session id fits its column; a refresh token fits the contract's rule and is shorter than its hash."""
    made = RandomSecrets()
    assert len(made.session_id()) == 32
    assert len(made.token()) == 43
    assert made.token() != made.token()

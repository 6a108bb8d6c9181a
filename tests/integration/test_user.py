"""The user service as it runs: real gRPC, SQL, Valkey and broker, real argon2id and ES256."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis as redispy
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import KeySet

from paymesh.user.v1 import user_event_pb2
from paymesh.user.v1 import user_service_pb2 as pb
from paymesh.user.v1 import user_service_pb2_grpc as rpc
from services.platform import migrations
from services.platform.database import Database
from services.platform.revocation import RevokedSessions
from services.platform.status import error_from
from services.user import audit
from services.user.app import build
from services.user.settings import Settings
from services.user.store import tables as t
from tests.integration.topics import reader
from tests.running import Served

PASSWORD = "correct horse battery"
ADMIN_PASSWORD = "only for the tests"


class Users:
    """The service under test with its stub."""

    def __init__(self, served: Served, settings: Settings) -> None:
        self.served, self.settings = served, settings
        self.stub = rpc.UserServiceStub(served.channel)

    def register(
        self, name: str, key: str = "", password: str = PASSWORD, email: str = "", phone: str = ""
    ) -> pb.RegisterUserResponse:
        """Make an account."""
        address = email or f"{name}@example.com"
        request = pb.RegisterUserRequest(username=name, email=address, password=password, phone=phone)
        answer: pb.RegisterUserResponse = self.served.call(self.stub.RegisterUser, request, key=key, sid="")
        return answer

    def log_in(self, name: str, password: str = PASSWORD) -> pb.LoginUserResponse:
        """Begin a session."""
        request = pb.LoginUserRequest(username=name, password=password)
        answer: pb.LoginUserResponse = self.served.call(
            self.stub.LoginUser, request, sid="", x_envoy_external_address="192.0.2.7"
        )
        return answer

    def refresh(self, token: str) -> pb.RefreshSessionResponse:
        """Exchange a refresh token."""
        request = pb.RefreshSessionRequest(refresh_token=token)
        answer: pb.RefreshSessionResponse = self.served.call(self.stub.RefreshSession, request, sid="")
        return answer

    def claims(self, token: str) -> dict[str, Any]:
        """Verify an access token as the edge does: with the published keys alone."""
        jwks = self.served.call(self.stub.GetJwks, pb.GetJwksRequest(), sid="", peer="config")
        keys = [{f.name: value for f, value in key.ListFields()} for key in jwks.keys]
        return dict(jwt.decode(token, KeySet.import_key_set({"keys": keys}), algorithms=["ES256"]).claims)

    def call(self, method: str, request: object, token: str) -> Any:  # noqa: ANN401 - the method's response
        """Call with an access token, as the edge passes it on."""
        claims = self.claims(token)
        return self.served.call(
            getattr(self.stub, method), request, user=int(claims["sub"]), scope=claims["scope"], sid=claims["sid"]
        )

    def refused(self, method: str, request: object, token: str) -> str:
        """The reason with which a call is refused."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, token)
        return error_from(caught.value).reason

    def breaches(self, *, settled: bool = False) -> list[str]:
        """What the audit finds wrong."""
        database = Database(self.settings.database_url)
        with database.read() as connection:
            found = [
                b for f in audit.invariants(connection, int(time.time() * 1000), settled=settled) for b in f.breaches
            ]
        database.stop()
        return found


@pytest.fixture
def settings(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str) -> Settings:
    """Settings over an empty database; hashes are as cheap as argon2 allows."""
    url = f"sqlite:///{tmp_path / 'user.db'}"
    migrations.upgrade("user", url)
    return Settings(data=tmp_path, listen=f"unix:{run_dir}/u.sock", database_url=url, redis_url=redis_url, kafka=kafka,
                    admin_username="admin", admin_password=ADMIN_PASSWORD, hash_memory_kib=64)  # fmt: skip


@pytest.fixture
def users(settings: Settings) -> Iterator[Users]:
    """A user service that runs."""
    with Served(build(settings)) as served:
        yield Users(served, settings)


def reason(caught: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    """The reason of the contract that a call was refused with."""
    return error_from(caught.value).reason


def test_person_registers_logs_in_and_reads_the_account(users: Users) -> None:
    """The whole way: the token is verified with the published key and opens one's own account."""
    made = users.register("alice", phone="+8613800000000").user
    given = users.log_in("Alice@Example.com")
    assert given.user == made
    claims = users.claims(given.session.access_token)
    assert (claims["iss"], claims["aud"], claims["sub"], claims["scope"]) == (
        "paymesh",
        "paymesh-api",
        str(made.id),
        "",
    )
    assert claims["exp"] - claims["iat"] == given.session.expires_in == 900
    assert users.call("GetUser", pb.GetUserRequest(id=made.id), given.session.access_token).user == made
    assert users.refused("GetUser", pb.GetUserRequest(id=made.id + 1), given.session.access_token) == "NOT_OWNER"
    assert users.breaches() == []


def test_registration_is_answered_with_the_same_bytes_when_it_is_repeated(users: Users) -> None:
    """Twenty at once under one key make one account; another password under the key is another request."""
    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(lambda _: users.register("alice", "key-00001").SerializeToString(), range(20)))
    assert len(answers) == 1
    with pytest.raises(grpc.RpcError) as caught:
        users.register("alice", "key-00001", password="another password")
    assert reason(caught) == "IDEMPOTENCY_KEY_REUSED"
    with pytest.raises(grpc.RpcError) as caught:
        users.register("ALICE", "key-00002", email="other@example.com")
    assert reason(caught) == "USERNAME_TAKEN"


def test_registration_of_one_name_succeeds_once_when_twenty_come_at_once(users: Users) -> None:
    """Nineteen are told that it is taken, and nobody gets an INTERNAL."""

    def attempt(number: int) -> str:
        try:
            users.register("alice", email=f"a{number}@example.com")
        except grpc.RpcError as error:
            return error_from(error).reason
        return ""

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(attempt, range(20))) == ["", *["USERNAME_TAKEN"] * 19]


def test_bad_registration_lists_every_violation(users: Users) -> None:
    """All at once, before anything is hashed."""
    with pytest.raises(grpc.RpcError) as caught:
        users.served.call(
            users.stub.RegisterUser, pb.RegisterUserRequest(username="a", email="b", password="c", phone="d"), sid=""
        )
    assert reason(caught) == "INVALID_ARGUMENT"
    trailers: Any = caught.value.trailing_metadata()
    details = dict(trailers)["grpc-status-details-bin"]
    assert all(field in details for field in (b"username", b"email", b"password", b"phone"))


def test_account_is_locked_when_five_passwords_were_wrong(users: Users) -> None:
    """The right one does not open it then, and it says for how long."""
    users.register("alice")
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as caught:
            users.log_in("alice", "wrong")
        assert reason(caught) == "CREDENTIALS_INVALID"
    with pytest.raises(grpc.RpcError) as caught:
        users.log_in("alice")
    error = error_from(caught.value)
    assert error.reason == "ACCOUNT_LOCKED"
    assert 890 <= int(error.metadata["retry_after_s"]) <= 900


def test_logout_is_heard_by_every_service_within_a_second(users: Users) -> None:
    """By this one's interceptor and by another's set; the refresh token ends too."""
    users.register("alice")
    session = users.log_in("alice").session
    sid = users.claims(session.access_token)["sid"]
    elsewhere = RevokedSessions(users.settings.redis_url)
    elsewhere.start()
    users.call("LogoutUser", pb.LogoutUserRequest(), session.access_token)
    until = time.monotonic() + 1
    while sid not in elsewhere and time.monotonic() < until:
        time.sleep(0.01)
    assert sid in elsewhere
    elsewhere.stop()
    assert users.refused("LogoutUser", pb.LogoutUserRequest(), session.access_token) == "SESSION_REVOKED"
    with pytest.raises(grpc.RpcError) as caught:
        users.refresh(session.refresh_token)
    assert reason(caught) == "REFRESH_TOKEN_INVALID"


def test_refresh_token_works_once_when_it_comes_many_times_at_once(users: Users) -> None:
    """One of ten is answered; the session ends, for a token that comes twice was stolen or lost."""
    users.register("alice")
    session = users.log_in("alice").session

    def attempt(_: int) -> str:
        try:
            return users.refresh(session.refresh_token).session.refresh_token
        except grpc.RpcError as error:
            return error_from(error).reason

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(attempt, range(10)))
    (fresh,) = (o for o in outcomes if o != "REFRESH_TOKEN_INVALID")
    assert outcomes.count("REFRESH_TOKEN_INVALID") == 9
    assert attempt_refresh(users, fresh) == "REFRESH_TOKEN_INVALID"


def attempt_refresh(users: Users, token: str) -> str:
    """The reason with which a refresh is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        users.refresh(token)
    return reason(caught)


def test_everything_is_rebuilt_when_redis_is_lost(users: Users) -> None:
    """Sessions, accounts, permissions and the ended sessions come back from SQL."""
    made = users.register("alice").user
    admin = users.log_in("admin", ADMIN_PASSWORD).session.access_token
    ended, live = users.log_in("alice").session, users.log_in("alice").session
    users.call("LogoutUser", pb.LogoutUserRequest(), ended.access_token)
    with redispy.Redis.from_url(users.settings.redis_url) as client:
        client.flushall()
        assert users.call("GetUser", pb.GetUserRequest(id=made.id), live.access_token).user == made
        assert users.call("GetUser", pb.GetUserRequest(id=made.id), admin).user == made
        assert (
            client.exists(
                f"user:{made.id}", f"permissions:{users.claims(admin)['sub']}", f"session:{users.claims(admin)['sid']}"
            )
            == 3
        )
        until = time.monotonic() + 8
        while not client.zcard("paymesh:sessions:revoked:until") and time.monotonic() < until:
            time.sleep(0.05)
        assert client.zrange("paymesh:sessions:revoked:until", 0, -1) == [
            users.claims(ended.access_token)["sid"].encode()
        ]


def test_service_works_when_redis_is_away(users: Users, redis_url: str) -> None:
    """A session that ended is refused all the same: SQL is asked."""
    with Served(build(_elsewhere(users.settings, redis_url="redis://127.0.0.1:9/0"))) as served:
        alone = Users(served, users.settings)
        made = alone.register("alice").user
        session = alone.log_in("alice").session
        assert alone.call("GetUser", pb.GetUserRequest(id=made.id), session.access_token).user == made
        alone.call("LogoutUser", pb.LogoutUserRequest(), session.access_token)
        assert alone.refused("GetUser", pb.GetUserRequest(id=made.id), session.access_token) == "SESSION_REVOKED"


def test_second_instance_signs_with_the_same_key(users: Users) -> None:
    """It shares database and data folder; the operator is made once, and its tokens are good at both."""
    with Served(build(_elsewhere(users.settings, instance=2))) as served:
        other = Users(served, users.settings)
        token = other.log_in("admin", ADMIN_PASSWORD).session.access_token
        assert users.claims(token) == other.claims(token)
        admin = users.call("GetUser", pb.GetUserRequest(id=int(users.claims(token)["sub"])), token).user
        assert list(admin.roles) == ["operator"]
    assert users.breaches() == []


def test_operator_gives_a_role_and_its_scopes_follow(users: Users) -> None:
    """At the next token; a customer may not; what was withdrawn is gone here at once."""
    admin = users.log_in("admin", ADMIN_PASSWORD).session.access_token
    bob, alice = users.register("bob").user, users.register("alice").user
    first = users.log_in("bob").session
    grant = pb.SetUserRolesRequest(id=bob.id, roles=["customer", "support"])
    assert users.refused("SetUserRoles", grant, first.access_token) == "SCOPE_MISSING"
    assert list(users.call("SetUserRoles", grant, admin).user.roles) == ["customer", "support"]
    second = users.refresh(first.refresh_token).session
    assert "users:read" in second.scope.split()
    assert users.call("GetUser", pb.GetUserRequest(id=alice.id), second.access_token).user == alice
    users.call("SetUserRoles", pb.SetUserRolesRequest(id=bob.id, roles=["customer"]), admin)
    assert users.refused("GetUser", pb.GetUserRequest(id=alice.id), second.access_token) == "NOT_OWNER"
    assert users.refused("SetUserRoles", pb.SetUserRolesRequest(id=bob.id, roles=["emperor"]), admin) == "ROLE_UNKNOWN"


def test_new_password_ends_the_other_sessions(users: Users) -> None:
    """The old password is no good any more; the session that changed it goes on."""
    made = users.register("alice").user
    kept, lost = users.log_in("alice").session, users.log_in("alice").session
    change = pb.UpdateUserRequest(
        id=made.id, password="another password", current_password=PASSWORD, email="New@example.com"
    )
    assert users.call("UpdateUser", change, kept.access_token).user.email == "New@example.com"
    assert users.refused("GetUser", pb.GetUserRequest(id=made.id), lost.access_token) == "SESSION_REVOKED"
    assert users.call("GetUser", pb.GetUserRequest(id=made.id), kept.access_token).user.email == "New@example.com"
    with pytest.raises(grpc.RpcError) as caught:
        users.log_in("new@example.com")
    assert reason(caught) == "CREDENTIALS_INVALID"
    assert users.log_in("new@example.com", "another password").user.id == made.id
    assert users.refused("UpdateUser", change, kept.access_token) == "CREDENTIALS_INVALID"


def test_events_reach_the_broker_in_order(users: Users) -> None:
    """Made, logged in, changed: versions 1 to 3 of the user, as messages of the contract, and the audit holds."""
    made = users.register("alice").user
    token = users.log_in("alice").session.access_token
    users.call("UpdateUser", pb.UpdateUserRequest(id=made.id, phone="+8613800000000"), token)
    kinds: dict[str, Any] = {"user.created": user_event_pb2.UserCreated, "user.login": user_event_pb2.UserLogin,
                             "user.updated": user_event_pb2.UserUpdated}  # fmt: skip
    consumer = reader(users.settings.kafka, kinds)
    found: dict[int, Any] = {}
    until = time.monotonic() + 20
    while len(found) < 3 and time.monotonic() < until:
        for message in consumer.consume(10, timeout=0.2):
            if not message.error():
                event = kinds[str(message.topic())].FromString(message.value())
                found |= {event.version: event} if event.user_id == made.id else {}
    consumer.close()
    assert [type(found[n]) for n in sorted(found)] == [
        kinds["user.created"],
        kinds["user.login"],
        kinds["user.updated"],
    ]
    assert (found[1].email, found[2].client_ip, found[3].phone) == ("alice@example.com", "192.0.2.7", "+8613800000000")
    time.sleep(0.5)
    assert users.breaches(settled=True) == []


def test_no_secret_is_stored_in_clear(users: Users) -> None:
    """Neither in any column nor in any event: not the password, not a token, not a private key."""
    users.register("alice", "key-00001")
    session = users.log_in("alice").session
    database = Database(users.settings.database_url)
    with database.read() as connection:
        stored = b"\n".join(
            value if isinstance(value, bytes) else str(value).encode()
            for table in t.metadata.sorted_tables
            for row in connection.execute(sa.select(table))
            for value in row
        )
    database.stop()
    assert b"alice" in stored
    for secret in (PASSWORD, ADMIN_PASSWORD, session.refresh_token, session.access_token):
        assert secret.encode() not in stored
    with redispy.Redis.from_url(users.settings.redis_url) as client:
        assert not [key for key in client.keys("*") if session.refresh_token.encode() in key]


def _elsewhere(settings: Settings, **changed: str | int) -> Settings:
    """The same mesh, another process."""
    return dataclasses.replace(settings, listen=settings.listen + "2", **changed)  # type: ignore[arg-type]

"""Files behind S3's protocol, spoken with moto's server, which checks each request's signature."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from services.kernel.errors import DomainError
from services.payment.adapters.files import Bucket, S3Files
from tests.integration.provider_sandbox import free_port

BILL = "支付宝\r\n".encode("gbk") * 700_000
"""Beyond the size from which clients like to send parts."""
EVERYTHING = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}


@dataclass
class Store:
    """A server that speaks S3, with a bucket, and the key that opens it."""

    url: str
    bucket: Bucket

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        """Another client than ours."""
        return boto3.client(service, endpoint_url=self.url, region_name=self.bucket.region,
                            aws_access_key_id=self.bucket.key_id, aws_secret_access_key=self.bucket.secret)  # fmt: skip

    def names(self) -> list[str]:
        """What is in the bucket."""
        return [each["Key"] for each in self.client("s3").list_objects_v2(Bucket="bills").get("Contents", [])]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server on loopback that believes everyone."""
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def store(server: str) -> Iterator[Store]:
    """An empty bucket, and a user whose key opens it; signatures are checked."""
    _tell(server, "reset-auth", b"inf")
    _tell(server, "reset", b"")
    nobody = Store(server, Bucket(server, key_id="nobody", secret="yet"))
    nobody.client("s3").create_bucket(Bucket="bills")
    iam = nobody.client("iam")
    iam.create_user(UserName="paymesh")
    iam.put_user_policy(UserName="paymesh", PolicyName="bills", PolicyDocument=json.dumps(EVERYTHING))
    key = iam.create_access_key(UserName="paymesh")["AccessKey"]
    _tell(server, "reset-auth", b"0")
    yield Store(server, Bucket(server, key_id=key["AccessKeyId"], secret=key["SecretAccessKey"]))
    _tell(server, "reset-auth", b"inf")


def _tell(url: str, what: str, content: bytes) -> None:
    assert httpx.post(f"{url}/moto-api/{what}", content=content, trust_env=False).status_code == 200


def refusal(kept: S3Files, sha256: str = "") -> str:
    """The reason why a file is not read, or not kept."""
    with pytest.raises(DomainError) as caught:
        kept.get(sha256) if sha256 else kept.put(BILL)
    return caught.value.reason


def test_file_is_kept_by_its_hash(store: Store) -> None:
    """Whole, under the prefix, once; another instance finds it."""
    kept = S3Files("bills/of/2027/", store.bucket)
    name = kept.put(BILL)
    assert name == hashlib.sha256(BILL).hexdigest() == kept.put(BILL)
    assert S3Files("bills/of/2027", store.bucket).get(name) == BILL
    assert store.names() == [f"of/2027/{name[:2]}/{name}"]
    assert kept.get("0" * 64) is None
    assert S3Files("bills", store.bucket).get(name) is None


def test_file_that_was_damaged(store: Store) -> None:
    """It is not handed out as what it was; put again it is whole."""
    kept = S3Files("bills", store.bucket)
    name = kept.put(BILL)
    store.client("s3").put_object(Bucket="bills", Key=f"{name[:2]}/{name}", Body=b"another")
    assert refusal(kept, name) == "UNAVAILABLE"
    assert kept.get(kept.put(BILL)) == BILL


def test_store_that_does_not_open_or_answer(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong key, no such bucket, nobody there: UNAVAILABLE, soon, and no key in what is logged."""
    wrong = S3Files("bills", replace(store.bucket, secret="guessed-secret"))
    assert refusal(wrong) == refusal(wrong, "0" * 64) == "UNAVAILABLE"
    assert refusal(S3Files("others", store.bucket)) == "UNAVAILABLE"
    assert store.names() == []
    began = time.monotonic()
    nobody = S3Files("bills", replace(store.bucket, endpoint=f"http://127.0.0.1:{free_port()}"))
    assert refusal(nobody) == refusal(nobody, "0" * 64) == "UNAVAILABLE"
    assert time.monotonic() - began < 25
    out, err = capfd.readouterr()
    assert store.bucket.secret not in out + err
    assert "guessed-secret" not in out + err

"""What a merchant sends: its Authorization verified over the exact bytes, its JSON read field by field."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from services.sandbox import signing

SCHEME = "WECHATPAY2-SHA256-RSA2048"
WINDOW_S = 300
_PARTS = ("mchid", "nonce_str", "signature", "timestamp", "serial_no")
_PART = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*')


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str, message: str, **detail: object) -> None:
        """Answer ``status`` and `code`; ``detail`` says which field."""
        self.status = status
        self.body: dict[str, object] = {"code": code, "message": message, **({"detail": detail} if detail else {})}
        super().__init__(code, message)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. ``target`` is path and query, header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Gate:
    """Lets requests of one merchant in."""

    def __init__(self, mchid: str, serial_no: str, key: RSAPublicKey) -> None:
        """Know the merchant by the key of his certificate ``serial_no``."""
        self._mchid, self._serial_no, self._key = mchid, serial_no, key
        self._nonces: OrderedDict[str, float] = OrderedDict()

    def admit(self, received: Received, now_s: float) -> None:
        """Verify a request. Raises ApiError."""
        if not received.headers.get("user-agent") or not _accepts_json(received.headers.get("accept", "")):
            raise ApiError(400, "PARAM_ERROR", "Http头缺少Accept或User-Agent")
        if received.body and not received.headers.get("content-type", "").startswith("application/json"):
            raise ApiError(400, "PARAM_ERROR", "Http头Content-Type须为application/json")
        parts = _parts(received.headers.get("authorization", ""))
        if parts["mchid"] != self._mchid:
            raise _unauthorized("商户号不存在", "mchid", "unknown")
        if parts["serial_no"].upper() != self._serial_no:
            raise _unauthorized("商户证书序列号有误, 请使用签名私钥匹配的证书序列号", "serial_no", "unknown")
        if not re.fullmatch(r"[0-9]{10}", parts["timestamp"]) or abs(now_s - int(parts["timestamp"])) >= WINDOW_S:
            raise _unauthorized("Http头Authorization中的timestamp与当前时间相差超过5分钟", "timestamp", "stale")
        if not re.fullmatch(r"[\x21-\x7e]{1,64}", parts["nonce_str"]):
            raise _unauthorized("Http头Authorization中的nonce_str有误", "nonce_str", "malformed")
        head = "\n".join((received.method, received.target, parts["timestamp"], parts["nonce_str"], ""))
        if not signing.verify(self._key, head.encode() + received.body + b"\n", parts["signature"]):
            raise _unauthorized("错误的签名, 验签失败", "signature", "sign not match")
        self._use(parts["nonce_str"], now_s)

    def _use(self, nonce: str, now_s: float) -> None:
        # A request is good for 300 s before and after its timestamp: its nonce is remembered for both.
        while self._nonces and next(iter(self._nonces.values())) < now_s - 2 * WINDOW_S:
            self._nonces.popitem(last=False)
        if nonce in self._nonces:
            raise _unauthorized("nonce_str已被使用", "nonce_str", "replayed")
        self._nonces[nonce] = now_s


class Json:
    """A JSON object, read by paths such as /amount/total. Each reader refuses with 400 PARAM_ERROR."""

    def __init__(self, content: Mapping[str, Any], location: str = "body") -> None:
        """Read from ``content``, which stood in ``location`` of the request."""
        self._content, self._location = content, location

    def text(self, path: str, *, most: int, pattern: str = "", required: bool = True) -> str:
        """Return a string of at most ``most`` characters; "" for one that is not there and need not be."""
        value = self._at(path)
        if value is None or (value == "" and not required):
            if required:
                raise self._invalid(path, None, "必填项缺失")
            return ""
        if not isinstance(value, str) or not 1 <= len(value) <= most or (pattern and not re.fullmatch(pattern, value)):
            raise self._invalid(path, value, "字符串规则校验失败")
        return value

    def fen(self, path: str) -> int:
        """Return an amount: a whole number of at least 1."""
        value = self._at(path)
        if type(value) is not int or not 1 <= value <= 10_000_000_000:
            raise self._invalid(path, value, "数值规则校验失败")
        return value

    def same(self, path: str, wanted: str, *, required: bool = True) -> None:
        """Want one value."""
        if (found := self.text(path, most=64, required=required)) and found != wanted:
            raise self._invalid(path, found, "与商户不匹配")

    def _at(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        found: Any = self._content
        for name in path.strip("/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def _invalid(self, path: str, value: object, issue: str) -> ApiError:
        message = f"输入源“/{self._location}{path}”{issue}"
        return ApiError(400, "PARAM_ERROR", message, field=path, value=value, issue=issue, location=self._location)


def _parts(authorization: str) -> dict[str, str]:
    scheme, _, rest = authorization.partition(" ")
    if scheme != SCHEME:
        raise _unauthorized("Http头Authorization认证类型不正确", "authorization", "scheme")
    found: dict[str, str] = {}
    for each in rest.split(","):
        part = _PART.fullmatch(each)
        if part is None or part[1] in found:
            raise _unauthorized("Http头Authorization值格式错误", "authorization", "format")
        found[part[1]] = part[2]
    if set(found) != set(_PARTS):
        raise _unauthorized("Http头Authorization值格式错误", "authorization", "parts")
    return found


def _unauthorized(message: str, field: str, issue: str) -> ApiError:
    return ApiError(401, "SIGN_ERROR", message, field=field, issue=issue, location="authorization")


def _accepts_json(accept: str) -> bool:
    kinds = {each.split(";")[0].strip().lower() for each in accept.split(",")}
    return bool(kinds & {"application/json", "*/*"})

"""What differs from place to place: hosts, sizes, where the stores are. Overlays are the difference of two of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A place to run in. URLs of stores with their passwords are secrets; here stand their host:port alone.

    `image` is the image with its registry, `tag` its tag. `replicas` are instances of a service that does not scale by
    itself, `scale` the least and the most of one that does. `cards_url`, `sms_url`, `push_url` and `smtp` are the
    merchant's own vendors.
    """

    name: str
    host: str = "api.paymesh.example"
    image: str = "registry.example/paymesh"
    tag: str = "0.1.0"
    replicas: int = 2
    scale: tuple[int, int] = (2, 4)
    log_level: str = "info"
    database: str = "database.paymesh.example:3306"
    redis: str = "valkey.paymesh.example:6379"
    kafka: str = "kafka.paymesh.example:9092"
    alipay_url: str = "https://openapi.alipay.com/gateway.do"
    wechat_url: str = "https://api.mch.weixin.qq.com"
    cards_url: str = "https://cards.example"
    sms_url: str = "https://sms.example/messages"
    push_url: str = "https://push.example/messages"
    smtp: str = "smtp.example:587"
    self_signed: bool = False

    @property
    def public_url(self) -> str:
        """URL of the edge as providers reach it."""
        return f"https://{self.host}"

    def literals(self) -> dict[str, str]:
        """Return the settings that services read from a ConfigMap: environment variable -> value."""
        return {
            "PAYMESH_LOG_LEVEL": self.log_level,
            "PAYMESH_KAFKA": self.kafka,
            "PAYMESH_PUBLIC_URL": self.public_url,
            "PAYMESH_ALIPAY_URL": self.alipay_url,
            "PAYMESH_WECHAT_URL": self.wechat_url,
            "PAYMESH_CARDS_URL": self.cards_url,
            "PAYMESH_SMS_URL": self.sms_url,
            "PAYMESH_PUSH_URL": self.push_url,
            "PAYMESH_SMTP": self.smtp,
        }


def host_of(place: str) -> str:
    """Return the host of a URL or of host:port."""
    return urlsplit(place if "://" in place else f"//{place}").hostname or place


def port_of(place: str) -> int:
    """Return the port of a URL or of host:port; 443 where a URL names none."""
    return urlsplit(place if "://" in place else f"//{place}").port or 443


BASE = Environment(name="base")
"""What `base` and `services` are rendered for."""
PROD = replace(BASE, name="prod", replicas=3, scale=(3, 7))
DEV = replace(
    BASE,
    name="dev",
    host="api.paymesh.localhost",
    image="paymesh",
    tag="dev",
    replicas=1,
    scale=(1, 2),
    log_level="debug",
    database="mariadb.data.svc.cluster.local:3306",
    redis="valkey.data.svc.cluster.local:6379",
    kafka="kafka.data.svc.cluster.local:9092",
    self_signed=True,
)
INSTANCES_MAX = 15
"""Numbers of instances that ids have room for."""

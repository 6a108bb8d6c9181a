"""How the payer meets WeChat Pay: what each scene asks for, and what it hands to the payer."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from services.payment.adapters import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.payment.adapters.wechat.settings import WechatSettings
    from services.payment.adapters.wechat.signing import Signer

SCENES = frozenset({"native", "jsapi", "app", "h5"})

_NEEDED = {"jsapi": "openid", "h5": "client_ip"}
"""What a scene has to know of the payer."""

_GIVEN = {"native": "code_url", "jsapi": "prepay_id", "app": "prepay_id", "h5": "h5_url"}
"""What WeChat Pay answers in a scene."""


def missing(scene: str, payer: Mapping[str, str]) -> bool:
    """Whether something is not known of the payer that the scene needs."""
    return scene in _NEEDED and not payer.get(_NEEDED[scene])


def asked(scene: str, payer: Mapping[str, str]) -> dict[str, object]:
    """What a request has in this scene beyond what it has in each."""
    if scene == "jsapi":
        return {"payer": {"openid": payer["openid"]}}
    if scene == "h5":
        return {"scene_info": {"payer_client_ip": payer["client_ip"], "h5_info": {"type": "Wap"}}}
    return {}


def action(
    scene: str, members: strict_json.JsonObject, settings: WechatSettings, signer: Signer, seconds: int
) -> dict[str, str]:
    """What the payer needs to go on. Raises ValueError where WeChat Pay did not give it."""
    given = strict_json.string(members, _GIVEN[scene])
    if not given:
        raise ValueError(f"without {_GIVEN[scene]}")
    if scene == "native":
        return {"qr_code": given}
    if scene == "h5":
        return {"redirect_url": given}
    at, nonce = str(seconds), secrets.token_hex(16)
    if scene == "jsapi":
        package = f"prepay_id={given}"
        parameters = {
            "appId": settings.app_id,
            "timeStamp": at,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": signer.pay_sign(settings.app_id, at, nonce, package),
        }
    else:
        parameters = {
            "appid": settings.app_id,
            "partnerid": settings.mchid,
            "prepayid": given,
            "package": "Sign=WXPay",
            "noncestr": nonce,
            "timestamp": at,
            "sign": signer.pay_sign(settings.app_id, at, nonce, given),
        }
    return {"app_parameters": json.dumps(parameters, separators=(",", ":"))}

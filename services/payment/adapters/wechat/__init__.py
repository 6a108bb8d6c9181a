"""WeChat Pay v3: signed JSON over HTTP, answers and callbacks signed by keys that change, contents encrypted.

`WechatPay` is the provider; what it needs to know is in `WechatSettings`.
"""

from services.payment.adapters.wechat.provider import WechatPay
from services.payment.adapters.wechat.settings import WechatSettings

__all__ = ["WechatPay", "WechatSettings"]

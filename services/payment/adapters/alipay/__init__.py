"""Alipay by its gateway protocol: signed form posts, answers signed as they are written, notifications by form post.

`Alipay` is the provider; what it needs to know is in `AlipaySettings`.
"""

from services.payment.adapters.alipay.provider import Alipay
from services.payment.adapters.alipay.settings import AlipaySettings

__all__ = ["Alipay", "AlipaySettings"]

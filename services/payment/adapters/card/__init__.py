"""The card network: signed JSON over HTTP; authorize, capture, void, refund, 3-D Secure 2.

`CardNetwork` is the provider; what it needs to know is in `CardSettings`. Card numbers come from the vault on the way out
and from nowhere else; nothing here keeps or logs one.
"""

from services.payment.adapters.card.network import CardNetwork
from services.payment.adapters.card.settings import CardSettings

__all__ = ["CardNetwork", "CardSettings"]

"""What the adapter has to be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.payment.adapters.exchange import CONNECT_S, READ_S


@dataclass(frozen=True, kw_only=True, slots=True)
class CardSettings:
    """A merchant at the card network. The secrets are 32 bytes each: one signs what we say, the other what we are told.

    ``merchant_id`` is the network's name for us, ``vault_merchant_id`` the merchant whose cards are in the vault.
    ``return_url`` is where a challenge sends the payer afterwards. ``accept_unavailable``: whether a payment counts that
    was taken although 3-D Secure could not be done (transStatus U), for which the merchant is liable.
    """

    base_url: str
    merchant_id: str
    key_id: str
    request_secret: bytes = field(repr=False)
    answer_secret: bytes = field(repr=False)
    notify_url: str
    vault_merchant_id: int
    return_url: str = ""
    accept_unavailable: bool = False
    connect_s: float = CONNECT_S
    read_s: float = READ_S

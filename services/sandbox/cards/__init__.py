r"""A card network of our own: plain JSON over HTTP, signed with HMAC-SHA-256 in both directions.

**Key material.** DIR/providers/merchant/cards.json (written by services/sandbox/keys.py): merchant_id, key_id,
request_secret (signs requests) and answer_secret (signs answers and callbacks), both base64 of 32 bytes. The network knows
the same two secrets. They differ so that a request can never be sent back as an answer.

**A request** has the headers
  Card-Merchant: <merchant_id>    Card-Key: <key_id>    Card-Timestamp: <unix seconds>    Card-Nonce: <8 to 64 of A-Za-z0-9_->
  Card-Signature: base64(HMAC(request_secret, text)),  text = METHOD \n PATH[?QUERY] \n TIMESTAMP \n NONCE \n BODY \n
over the exact bytes of path, query and body (a GET has an empty body). |now - timestamp| < 300 s; a nonce serves once.
POST needs Content-Type: application/json. Unknown fields are refused.

**An answer** has Card-Timestamp, Card-Nonce (the nonce of the request, so that no older answer fits) and
  Card-Signature: base64(HMAC(answer_secret, text)),  text = STATUS \n TIMESTAMP \n NONCE \n BODY \n
with STATUS the three digits. Also on errors, unless the merchant or the key is unknown. An answer without it is not ours.

| request | body | answer |
|---|---|---|
| POST /cards/v1/charges | request_id, amount {minor_units, currency}, card {number, exp_month, exp_year, cvc?}, capture (bool), description, notify_url, return_url?, expire_at? (unix s) | charge |
| GET  /cards/v1/charges/{request_id} | | charge, 404 not_found |
| POST /cards/v1/charges/{request_id}/capture | amount {minor_units, currency} | charge |
| POST /cards/v1/charges/{request_id}/void | {} | charge; also ends a challenge that nobody passed |
| POST /cards/v1/refunds | request_id, charge_request_id, amount {…}, reason?, notify_url? | refund |
| GET  /cards/v1/refunds/{request_id} | | refund, 404 not_found |
| GET  /cards/v1/bills/{YYYY-MM-DD} | | text/csv, signed like every answer; 404 no_bill |

request_id: ours, 1 to 64 of A-Za-z0-9_-. minor_units: a whole number from 1 to 2^53 - 1; exp_year has four digits.

charge: {"request_id", "charge_id", "status", "amount" {…}, "captured" (minor units), "refunded" (minor units), "code" (why it
failed, or ""), "auth_code", "trans_status" (3DS2, or ""), "challenge_url" (or ""), "brand", "last4", "created" (unix s),
"updated" (unix s)}
  status: challenge (the payer has to prove who he is, at challenge_url unless trans_status is D) · processing (the outcome
  comes later) · authorized · captured · failed · voided. A full or partial refund leaves status captured.
refund: {"request_id", "refund_id", "charge_request_id", "charge_id", "status" (succeeded | failed), "amount" {…}, "code",
"created"}

A decline is an answer like any other: 200 with status failed and code card_declined, insufficient_funds, processing_error,
expired_card, authentication_failed (3DS N), authentication_unavailable (U), authentication_rejected (R), challenge_expired.

**Errors**: {"error": {"code", "message", "field"?}} with 400 invalid_request, invalid_amount, invalid_number, invalid_expiry ·
401 unauthorized, bad_signature, stale_timestamp, reused_nonce · 404 not_found · 409 request_conflict (same request_id, other
content), not_authorized (capture or void of what is not authorized), already_captured (another amount than the first time),
not_captured (refund of what is not captured), amount_too_large (capture over the authorization, refund over what is left) ·
402 card_declined, insufficient_funds, processing_error (capture, void or refund refused, nothing done; scripted) ·
413 too large · 500 internal_error: outcome unknown, query.

**Idempotency.** The same request_id with the same content is the same charge or refund: answered as it stands now, nothing is
charged twice (description, notify_url, return_url and cvc may differ). A repeated capture of the same amount and a repeated void answer the charge again. Capture happens once, whole or
in part; what is not captured is released.

**Callbacks** are POSTed to notify_url (https, or http to a loopback host): of a charge whenever it reaches a status of rest
(authorized, captured, failed, voided), of a refund when it is made. Body
  {"id", "type", "created" (unix s), "merchant_id", "data": {charge or refund}}, type charge.<status> or refund.<status>;
headers Card-Key, Card-Timestamp, Card-Nonce (new each time), Card-Signature with text = TIMESTAMP \n NONCE \n BODY \n under the
answer_secret. Taken is 200 or 204; else it is repeated after 15s 15s 30s 3m 10m 20m 30m 30m 30m 60m 3h 3h 3h 6h 6h with the same id.
No order between callbacks is promised, nor that one comes.

**Bill**: CSV in UTF-8 with a header line, one line a charge captured or refund made on that day (UTC):
  kind (charge | refund), request_id, charge_request_id, network_id, currency, amount, fee, time (unix s)
amount and fee in minor units, both positive. A bill is made once the day is over (or with the script's bill_today).

**Test cards** (any CVC, an expiry not past; other numbers that pass Luhn are approved). 3DS2 transStatus where one is given:
| number | outcome |
|---|---|
| 4242424242424242 | approved |
| 4000000000000002 | failed, card_declined |
| 4000000000009995 | failed, insufficient_funds |
| 4000000000000119 | failed, processing_error |
| 4000002500003155 | challenge (C); the payer passes (Y) or fails (N) |
| 4000000000070013 | charged, then no answer ever comes: the socket is dropped |
| 4000000000070021 | charged, then no answer ever comes: the socket hangs |
| 4000000000070039 | approved, each callback comes 50 times at once |
| 4000000000070047 | processing, approved 30 s later by callback |
| 4000000000070054 | processing, declined 30 s later by callback |
| 4000000000070062 | answered failed (processing_error), charged nevertheless, callback says captured |
| 4000000000070070 | A attempted: approved |
| 4000000000070088 | N not authenticated: failed |
| 4000000000070096 | U could not be authenticated: failed |
| 4000000000070104 | R rejected: failed |
| 4000000000070112 | D decoupled: challenge without a URL, the payer confirms elsewhere |
| 4000000000070120 | I informational: approved |
The payer of a challenge: POST /payer/cards/{request_id}/pay (transStatus Y, or {"trans_status": one of Y A N U R I}) or /refuse
(N). A challenge ends after 15 minutes or at expire_at: failed, challenge_expired. Scripts (services/sandbox/rules.py) know in
place of close capture and void; forge, callbacks: signature amount seller (merchant_id) currency order timestamp (an hour old,
truly signed); answers: signature unsigned timestamp nonce (an answer to another request) amount order. No card number is kept, in memory or on disk.
"""  # noqa: E501 - tables

r"""WeChat Pay v3 under /v3, as strict as the real one; there is no public sandbox of it.

A request needs Accept: application/json (or */*), a User-Agent, with a body Content-Type: application/json, and
  Authorization: WECHATPAY2-SHA256-RSA2048 mchid="…",nonce_str="…",signature="…",timestamp="…",serial_no="…"
verified over METHOD \n PATH?QUERY \n TIMESTAMP \n NONCE \n BODY \n, the exact bytes;
|now - timestamp| < 300 s; a nonce serves once.
Faults: 400 PARAM_ERROR (field, value, issue in `detail`), 401 SIGN_ERROR, 403 and 404 of the business, 500 SYSTEM_ERROR and
BANK_ERROR (unknown: query). Every answer but a bill's file is signed over TIMESTAMP \n NONCE \n BODY \n.

Which key signs answers and callbacks: the option sign_with of PUT /scripts/wechat
  certificate (default): the first platform certificate; /v3/certificates lists it alone
  both_certificates: the two certificates in turn; next_certificate: the second alone; /v3/certificates lists both
  both: the first certificate and the public key (Wechatpay-Serial: PUB_KEY_ID_…) in turn; an answer follows the Wechatpay-Serial
        of the request, where there is one · public_key: that alone; /v3/certificates answers 404 RESOURCE_NOT_EXISTS

What surprises, as at the real one:
- any refund, a partial one too, makes the trade_state REFUND; a refund is PROCESSING first and ends 5 s later (compressed).
- a repeated order with the same content answers the same code or prepay_id; of a paid one 400 ORDERPAID, closed 400 ORDER_CLOSED,
  other content 403 OUT_TRADE_NO_USED. Closing twice is 204 twice.
- notices of refunds say refund_status where answers say status, and have no currency.
- bills: UTF-8 with a byte order mark, every value after a backtick, fees with five decimals, commas in texts become blanks;
  hash_value is the SHA-1 of the unpacked file; the file's URL wants a signed request and serves five minutes.

Callbacks repeat after 15s 15s 30s 3m 10m 20m 30m 30m 30m 60m 3h 3h 3h 6h 6h unless answered 200 or 204; the id stays, timestamp,
nonce and signature are new. forge, callbacks: signature amount seller (mchid) app_id currency order
timestamp (an hour old, truly signed) probe (WECHATPAY/SIGNTEST/) serial (unknown) tag (truly signed, does not decrypt);
with a refund app_id and currency are as signature. Answers: signature unsigned timestamp probe serial amount order.

The payer: POST /payer/wechat/{no}/pay, with qr_code, redirect_url (h5) or app_parameters (jsapi, app: the JSON for the client,
whose paySign or sign is verified) or nothing.
"""

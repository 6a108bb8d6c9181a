"""The outside world on loopback. It speaks the real protocols, as strictly as the real providers, and misbehaves as told.

One process, `python -m services.sandbox`, named in app.py:
  mails (SMTP), sms, pushes   what was received, in memory alone. POST /sms, /pushes; GET /mails, /sms, /pushes, `?to=`
  alipay   the open gateway            alipay/__init__.py   POST /alipay/gateway.do
  wechat   WeChat Pay v3               wechat/__init__.py   /v3/…
  cards    a card network of our own   cards/__init__.py    /cards/v1/…
The last three exist where PAYMESH_SANDBOX_FOLDER says where (DIR/providers): key material (keys.py, made at the first start) and
books of charges (book.py, also read by `paymesh verify`). They share acquirer.py (order of work), rules.py (scripts), notifier.py
(callbacks), sockets.py (answers that never come), bills.py, and payer.py: POST /payer/…, /callbacks/…, GET /book.

GET, PUT /scripts/{name} · GET /healthz. PAYMESH_SANDBOX_TIME_SCALE compresses the waits of callbacks, refunds and late cards;
it does not touch expiries and time windows, which are of the wall clock.
"""

"""The outside world on loopback: a mail sink (SMTP), an SMS and a push provider (HTTP). They speak the real protocols.

One process, `python -m services.sandbox`; a provider is a module of its own that brings its routes and its script, and
is named in app.py. Kept in memory alone: what was received is for the demo and the tests to read.

HTTP: POST /sms, POST /pushes (the providers) · GET /mails, /sms, /pushes, with `?to=` · GET, PUT /scripts/{name} · GET /healthz
"""

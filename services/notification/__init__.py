"""Notification: tells people what happened, by SMS, e-mail and push, and the merchant by webhooks.

Owns       notifications with their attempts, the addresses of users as their events told them; the merchant's webhook
           endpoints with their secrets, and the deliveries to them
Calls      - (SMTP, HTTP to the SMS and push providers, https to the merchant's endpoints)
Publishes  notification.failed
Consumes   user.created user.updated order.paid payment.failed payment.refunded (e-mail to the user),
           risk.alert risk.block (e-mail to the operators), every order.* and payment.* (webhooks)
Tables     notifications, contacts, webhook_endpoints, webhook_deliveries, inbox, outbox, relay_lease, idempotency_keys
Invariants - an event makes one notification, and one delivery to each endpoint that wants it, in the transaction of its
             inbox row
           - a notification without recipient goes to the address that its user has when it is sent, so that the order in
             which topics are read does not matter; not knowing it yet is a failed try like any other
           - a try is counted before it is made and holds a lease; what is sent carries the notification's id (a delivery's
             endpoint and event), so that a receiver recognises the repeat after a crash between sending and noting it
           - tries are made at once and after 1 s, 5 s, 30 s, 2 min; then it is failed and notification.failed says so
           - webhooks follow Standard Webhooks: 10 tries in 76 hours, then failed, until somebody sends it again; 410
             disables the endpoint; whoever is disabled gets nothing
           - a webhook goes by https to an address that was found public in the same try, never to another
           - secrets are sealed with keys/notification.key wherever they are kept, also in the answers kept for repeats
           - the Redis list notifications:queue only makes it quick: SQL says what is to be sent, and a job pushes again what
             was not tried in time; webhooks are looked for in SQL alone
"""

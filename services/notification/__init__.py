"""Notification: tells people what happened, by SMS, e-mail and push.

Owns       notifications with their attempts, the addresses of users as their events told them
Calls      - (SMTP, and HTTP to the SMS and push providers)
Publishes  notification.failed
Consumes   user.created user.updated order.paid payment.failed payment.refunded (e-mail to the user),
           risk.alert risk.block (e-mail to the operators)
Tables     notifications, contacts, inbox, outbox, relay_lease, idempotency_keys
Invariants - an event makes one notification, in the transaction of its inbox row
           - a notification without recipient goes to the address that its user has when it is sent, so that the order in
             which topics are read does not matter; not knowing it yet is a failed try like any other
           - a try is counted before it is made and holds a lease; what is sent carries the notification's id, so that a
             provider recognises the repeat after a crash between sending and noting it
           - tries are made at once and after 1 s, 5 s, 30 s, 2 min; then it is failed and notification.failed says so
           - the Redis list notifications:queue only makes it quick: SQL says what is to be sent, and a job pushes again what
             was not tried in time
"""

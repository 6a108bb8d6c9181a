"""Risk: says of each payment whether it passes, passes and is looked at, or is refused.

Owns       rules, block list, assessments that were not approvals, alerts; the velocity series in Redis
Calls      -
Publishes  risk.alert, risk.block
Consumes   payment.initiated: what the velocity series are made of again
Tables     rules, blocked_users, rule_versions, assessments, alerts, assessed_payments, outbox, relay_lease, inbox,
           idempotency_keys
Invariants - an approval itself leaves nothing durable, its payment's event does; a review leaves an assessment and an
             alert, a block its event besides, in one transaction for the whole batch
           - a payment raises one alert, however often it is assessed, and counts once in its windows
           - a change of rules or block list is in force within a second in every instance: each asks the version in SQL
           - Redis holds copies and the velocity series. Both are put back when lost: a user's series before his next
             payment is judged. What only a refused attempt put down, which became no payment, is not
           - while Redis does not answer and a velocity rule is enabled, each payment is treated as the `Unreachable` rule
             says, and without such a rule as REVIEW under the name velocity_unjudged: nothing is approved in silence,
             while amounts and the block list are judged as ever
"""

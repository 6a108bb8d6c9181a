"""Risk: says of each payment whether it passes, passes and is looked at, or is refused.

Owns       rules, block list, assessments that were not approvals, alerts; the velocity series in Redis
Calls      -
Publishes  risk.alert, risk.block
Consumes   -
Tables     rules, blocked_users, rule_versions, assessments, alerts, outbox, relay_lease, idempotency_keys
Invariants - an approval leaves nothing durable; a review leaves an assessment and an alert, a block its event besides,
             in one transaction for the whole batch
           - a payment raises one alert, however often it is assessed, and counts once in its windows
           - a change of rules or block list is in force within a second in every instance: each asks the version in SQL
           - Redis holds copies and the velocity series. Copies are put back when lost. A lost series begins anew and is
             full again after one window
           - while Redis does not answer and a velocity rule is enabled, each payment is treated as the `Unreachable` rule
             says, and without such a rule as REVIEW under the name velocity_unjudged: nothing is approved in silence,
             while amounts and the block list are judged as ever
"""

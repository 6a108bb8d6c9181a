"""The payment room.

Owns: payments, refunds, balances, the double-entry ledger with its hash chain, what is asked of providers, the cards that
users keep, the reviews that two operators decide.
Calls: risk (one batched call per batch of payments), order (batched look-up of orders whose event has not come yet).
Publishes: payment.initiated, payment.success, payment.failed, payment.refunded.
Consumes: order.created, order.cancelled, order.payment_rejected.
Tables: payments, payment_history, refunds, attempts (what providers were asked), callbacks (what they told), accounts,
ledger_transactions, ledger_entries, ledger_chain, ledger_tail, bills, bill_settlements, bill_differences, settled_lines,
known_orders, payment_methods, cards and card_keys (the vault: numbers as ciphertext, keys as they are wrapped), reviews,
audit_log (what operators did, hash-chained), idempotency_keys, outbox, relay_lease, inbox.
Invariants: I1, I2, I3 (one live payment per order), I4, I5, I6, I7, I8, I10, I12 of `paymesh verify`.
"""

"""The order room.

Owns       orders with their items, and the inventory: what is available, what is held for pending orders
Calls      -
Publishes  order.created, order.paid, order.cancelled, order.refunded, order.payment_rejected
Consumes   payment.success, payment.refunded
Tables     orders, order_items, order_history, rejected_payments, stock, idempotency_keys, outbox, relay_lease, inbox
Invariants - never oversold: available and reserved never fall below 0, and reserved = items of pending orders, per SKU
           - an order is paid by payment.success alone, once, by one payment, for its exact amount
           - a payment that an order cannot take is rejected once and revives nothing; payment gives it back
           - each order's history is a path in the published state graph (I12), its events number 1, 2, 3 … (I8)

Paying consumes what was reserved; cancelling and expiry give it back; a refund restocks nothing, since goods that left
come back by SetStock when they are really there. An order that is pending takes its payment even when its time is over
but the expiry job has not come yet: its stock is still held, and the money is there.
"""

"""Versions of the payment room's schema, oldest first."""

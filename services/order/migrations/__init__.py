"""Versions of the order database: expand first, contract in a later release."""

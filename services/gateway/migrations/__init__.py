"""Versions of the gateway's schema."""

"""Versions of notification's tables."""

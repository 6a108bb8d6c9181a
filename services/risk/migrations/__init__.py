"""Versions of risk's tables."""

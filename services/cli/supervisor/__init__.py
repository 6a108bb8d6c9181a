"""Keeps child processes alive, shows what they say, and stops them in order. It knows nothing of paymesh."""

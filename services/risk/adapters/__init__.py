"""What risk reaches outside: Redis."""

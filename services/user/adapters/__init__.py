"""What is outside and is neither SQL nor another service: argon2, keys and tokens, Redis."""

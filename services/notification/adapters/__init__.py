"""What notification reaches outside: the queue in Redis, providers, and the texts on disk."""

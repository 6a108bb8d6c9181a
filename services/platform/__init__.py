"""The impure kit that every room is built from: server, interceptor, Batcher, database, outbox, broker, cache, settings."""

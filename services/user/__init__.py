"""User: accounts, sessions, roles, and the keys that sign access tokens.

Owns       accounts, password hashes, sessions with their refresh tokens, roles and the scopes that follow from them, signing keys
Calls      -
Publishes  user.created, user.updated, user.login
Consumes   -
Tables     users, user_roles, sessions, refresh_tokens, signing_keys, idempotency_keys, outbox, relay_lease
Redis      session:{id} (string, 30 min), user:{id} (hash), permissions:{id} (set), each rebuilt from SQL when lost
Invariants - no password, refresh token or private key is stored in clear: argon2id, SHA-256, AES-256-GCM
           - a user name and an e-mail address belong to one account, whatever their case (unique in the database)
           - versions of a user's events ascend from 1 without a gap: the user's row is locked by who makes one
           - a refresh token works once; the second use ends its session
           - a session has one unused refresh token while it is live
           - a session that ended is never revived, and every service hears of it
"""

"""Config: settings that change while the mesh runs, who is where in it, and what every Envoy is told.

Owns       configuration entries and their history; leases of instances and what health checks say of them;
           the xDS server (delta ADS with secrets) and the leaf certificates of all nodes
Calls      user.GetJwks, gateway.GetApiKeyTrust; grpc.health.v1.Health/Check of every instance, directly with a certificate
           of its own
Publishes  config.changed
Consumes   -
Tables     config_entries, config_history, instances, outbox, relay_lease
Invariants - versions of an entry ascend from 1 without a gap, in the entry, its history and its events
           - only an instance that holds a lease and passed its last checks gets calls; a renewal alone does not prove health
           - an instance is registered by its own service alone
           - calls are shared as a rollout's entry says, after a restart too; weights never leave a service without an instance
           - a stream gets a node's configuration, and its private key, only with that node's join token
           - config may die and come back at any time: Envoys keep what they have, and get only what changed meanwhile
"""

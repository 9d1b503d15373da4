"""How commands reach a server, a cluster or the master that sentinels name."""

"""What the contract of caches is made of, by topic; :mod:`agent_service.testing.contracts` puts it together."""

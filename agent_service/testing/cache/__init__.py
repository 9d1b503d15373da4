"""The parts of the cache contract, by topic; :mod:`agent_service.testing.contracts` combines them."""

"""How caches behave: the same probes, run against agent_service and the other libraries side by side."""

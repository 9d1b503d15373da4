"""What handlers ask for in their signatures. Each can be replaced by ``app.dependency_overrides``."""

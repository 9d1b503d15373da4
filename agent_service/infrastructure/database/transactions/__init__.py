"""Sessions of SQLAlchemy and their transactions: isolation, tenant, read-only, the caller's own."""

"""URLs of databases and of Redis: parsed, checked and masked."""

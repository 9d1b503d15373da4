"""What SQLite needs to be correct under concurrent writers."""

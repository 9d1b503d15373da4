"""What context stores keep in a database: tables of keys and values, and the contexts of sessions."""

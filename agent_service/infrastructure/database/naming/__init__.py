"""What the objects of this package are called in a database, and where they are."""

"""Records: hashes of typed JSON fields, with a TTL, listings and indexes."""

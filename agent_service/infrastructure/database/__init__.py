"""The durable log of conversations; the only room that imports sqlalchemy."""

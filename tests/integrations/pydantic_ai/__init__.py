"""Conversations of Pydantic AI in the database."""

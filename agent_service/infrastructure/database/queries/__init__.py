"""Statements, built once: what is sent to the database, without who may send it."""

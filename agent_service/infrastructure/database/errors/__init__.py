"""Errors of drivers and SQLAlchemy, told apart and translated into ours."""

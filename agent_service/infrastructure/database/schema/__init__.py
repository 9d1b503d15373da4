"""How the tables come to be and change: Alembic revisions in short steps."""

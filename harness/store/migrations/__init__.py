"""The alembic environment of the store; :mod:`harness.store.migrate` runs it, no alembic.ini is needed."""

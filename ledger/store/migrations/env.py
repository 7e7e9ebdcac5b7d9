"""Alembic's entry: runs the migrations on the connection that `open_store` gives, inside its transaction."""

from alembic import context

from ledger.store.migration import VERSION_TABLE
from ledger.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

"""Alembic's entry: online only, one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from app.jobs import access_tables, figures, webhook_tables, worker_tables  # noqa: F401  (add to the metadata)
from app.jobs.tables import Base

MIGRATION_LOCK = 7_300_001

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=NullPool)
with engine.begin() as connection:
    connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
    connection.execute(text("SET LOCAL lock_timeout = '3s'"))
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
    context.run_migrations()

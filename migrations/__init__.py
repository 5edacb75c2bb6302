"""Database migrations, applied by the service at start (alembic)."""

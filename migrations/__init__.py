"""Database migrations (Alembic). The service applies them at start."""

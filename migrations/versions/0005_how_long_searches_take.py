"""Adds each replica's search latency (99th percentile)."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replicas", sa.Column("search_p99", sa.Double, nullable=True))


def downgrade() -> None:
    op.drop_column("replicas", "search_p99")

"""Adds the table replicas, and the time of each change to the feed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("feed", sa.Column("created", sa.Double, nullable=False, server_default="0"))
    op.create_table(
        "replicas",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("replicas")
    op.drop_column("feed", "created")

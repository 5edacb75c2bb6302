"""Adds the table of what mirroring imports have stored."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mirrored",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("pass", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_mirrored_id", "mirrored", ["id"])


def downgrade() -> None:
    op.drop_table("mirrored")

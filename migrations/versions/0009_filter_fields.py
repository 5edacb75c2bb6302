"""Adds the tables of filter fields. Processes of earlier versions ignore them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "filter_fields",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("filled", sa.BigInteger, nullable=True),
        sqlite_autoincrement=True,
    )
    # By code point on both databases, whatever the locale.
    by_code_point = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
    op.create_table(
        "filter_values",
        sa.Column("field", sa.Integer, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Double, nullable=True),
        sa.Column("text", by_code_point, nullable=True),
        sa.Column("moment", sa.Double, nullable=True),
    )
    for name in ("number", "text", "moment"):
        op.create_index(f"ix_filter_values_{name}", "filter_values", ["field", name, "seq"])
    op.create_index("ix_filter_values_seq", "filter_values", ["seq"])


def downgrade() -> None:
    op.drop_table("filter_values")
    op.drop_table("filter_fields")
    op.execute("DELETE FROM state WHERE name = 'filter_fields_seq'")

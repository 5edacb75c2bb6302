"""Adds the tables of perceptual hashes and of the groups of copies. Processes of earlier versions
ignore them; the hashes of images that those delete are swept later."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "copy_hashes",
        sa.Column("number", sequence, primary_key=True, autoincrement=True),
        sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("quality", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "copy_groups",
        sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    )


def downgrade() -> None:
    op.drop_table("copy_groups")
    op.drop_table("copy_hashes")
    op.execute("DELETE FROM state WHERE name IN ('copy_filler', 'copy_groups_job')")

"""Moves codes into a separate table, which holds codes of several models."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("added", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "artifacts",
        sa.Column("model", sa.Integer, sa.ForeignKey("models.number"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "codes",
        sa.Column("model", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("code", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO models (id, active, whole, added) "
        "SELECT value, true, true, '' FROM state WHERE name = 'model'"
    )
    op.execute(
        "INSERT INTO codes (model, seq, code) SELECT models.number, images.seq, images.code "
        "FROM images JOIN models ON models.id = images.model ORDER BY images.seq"
    )
    op.execute("DELETE FROM state WHERE name = 'model'")
    op.drop_column("images", "model")
    op.drop_column("images", "code")
    op.drop_column("feed", "code")
    op.add_column("replicas", sa.Column("models", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Keeps the codes of the active model only; those of other models are lost."""
    op.add_column("images", sa.Column("model", sa.String(64), nullable=False, server_default=""))
    op.add_column("images", sa.Column("code", sa.LargeBinary, nullable=False, server_default=""))
    op.add_column("feed", sa.Column("code", sa.LargeBinary, nullable=True))
    of_active = (
        "SELECT codes.code FROM codes JOIN models ON models.number = codes.model "
        "WHERE models.active AND codes.seq = "
    )
    op.execute(
        "UPDATE images SET model = (SELECT id FROM models WHERE active), "
        f"code = COALESCE(({of_active} images.seq), '')"
    )
    op.execute(f"UPDATE feed SET code = ({of_active} feed.seq)")
    op.execute("INSERT INTO state (name, value) SELECT 'model', id FROM models WHERE active")
    op.drop_column("replicas", "models")
    op.drop_table("codes")
    op.drop_table("artifacts")
    op.drop_table("models")

"""Adds the SHA-256 of each model's graph, network.onnx.

Processes of earlier versions leave it null, and their models have no graph. A database that was
downgraded has graphs already.
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

GRAPHS = sa.text("SELECT model, content FROM artifacts WHERE name = 'network.onnx'")
RECORD = sa.text("UPDATE models SET graph = :sha256 WHERE number = :model")


def upgrade() -> None:
    op.add_column("models", sa.Column("graph", sa.String(64), nullable=True))
    connection = op.get_bind()
    for model, content in connection.execute(GRAPHS).all():
        sha256 = hashlib.sha256(content).hexdigest()
        connection.execute(RECORD, {"model": model, "sha256": sha256})


def downgrade() -> None:
    op.drop_column("models", "graph")

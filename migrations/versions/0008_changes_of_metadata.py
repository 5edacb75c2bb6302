"""Adds the changes of metadata to the feed, by a trigger, so that processes of earlier versions,
which write no such changes, cause them too. They read them as changes of nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SQLITE = """
CREATE TRIGGER images_metadata AFTER UPDATE OF metadata ON images
WHEN OLD.metadata IS NOT NEW.metadata AND OLD.seq = NEW.seq
BEGIN
  INSERT INTO feed (removes, describes, created)
  VALUES (NULL, NEW.seq, (julianday('now') - 2440587.5) * 86400.0);
END
"""
# Every transaction that writes images holds the lock under which feed numbers are assigned.
POSTGRES = """
CREATE FUNCTION gpq_metadata_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO feed (removes, describes, created)
  VALUES (NULL, NEW.seq, extract(epoch from clock_timestamp()));
  PERFORM pg_notify('gpq_feed', '');
  RETURN NULL;
END
$$
"""
POSTGRES_TRIGGER = """
CREATE TRIGGER images_metadata AFTER UPDATE OF metadata ON images FOR EACH ROW
WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata AND OLD.seq = NEW.seq)
EXECUTE FUNCTION gpq_metadata_changed()
"""


def upgrade() -> None:
    op.add_column("feed", sa.Column("describes", sa.BigInteger, nullable=True))
    if _on_postgres():
        op.execute(POSTGRES)
        op.execute(POSTGRES_TRIGGER)
    else:
        op.execute(SQLITE)


def downgrade() -> None:
    if _on_postgres():
        op.execute("DROP TRIGGER images_metadata ON images")
        op.execute("DROP FUNCTION gpq_metadata_changed()")
    else:
        op.execute("DROP TRIGGER images_metadata")
    op.drop_column("feed", "describes")


def _on_postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"

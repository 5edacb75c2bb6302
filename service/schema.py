"""The tables. Created by ``migrations``; a test holds the two equal.

images    one row a picture: its code and what people keep with it
feed      one row a change, in commit order; every process applies it to its index
replicas  one row a running process: what it has applied, and when it said so
state     what all processes must agree on: the id of the active model, and the
          newest feed number that was taken out of the feed
"""

import sqlalchemy as sa

# SQLite gives AUTOINCREMENT (no reuse) to INTEGER keys only.
Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

images = sa.Table(
    "images",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("code", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("metadata", sa.Text, nullable=True),
)

feed = sa.Table(
    "feed",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    # The seq of the code this change takes out, and the code it puts in.
    sa.Column("removes", sa.BigInteger, nullable=True),
    sa.Column("code", sa.LargeBinary, nullable=True),
    # Seconds since the epoch; numbers, as clocks may, need not follow it.
    sa.Column("created", sa.Double, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)

replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.Double, nullable=False),
)

state = sa.Table(
    "state",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

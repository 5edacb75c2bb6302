"""The tables. Created by ``migrations``; a test holds the two equal.

images     one row a picture: what people keep, and the feed number of its last put
models     one row a model that has codes here; one of them is active
artifacts  the files of each model, so that every process can load it
codes      one row a picture and model: its packed code
feed       one row a change, in commit order; every process applies it to its indexes
replicas   one row a running process: what it has applied, how long its searches take, and
           when it said so
jobs       one row a long work: an import, a re-index; how far it is, and who is at it
job_failures  what a job could not use, and why
state      what all processes must agree on beside: the name of the database, and the
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
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("metadata", sa.Text, nullable=True),
)

models = sa.Table(
    "models",
    metadata,
    # Stands for the id in codes; never used again, so that what is left of a model that is
    # gone can belong to no other.
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("active", sa.Boolean, nullable=False),
    # Every picture has a code of it.
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("added", sa.String(32), nullable=False),
    sqlite_autoincrement=True,
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("model", sa.Integer, sa.ForeignKey("models.number"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

codes = sa.Table(
    "codes",
    metadata,
    sa.Column("model", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("code", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

feed = sa.Table(
    "feed",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    # The seq of the codes this change takes out; the ones it puts in have its own.
    sa.Column("removes", sa.BigInteger, nullable=True),
    # Seconds since the epoch; numbers, as clocks may, need not follow it.
    sa.Column("created", sa.Double, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)

replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("applied", sa.BigInteger, nullable=False),
    # Ids of the models whose codes it has in memory, with spaces between them.
    sa.Column("models", sa.Text, nullable=False, server_default=""),
    # Of its searches in the last seconds, in seconds; null where there were none.
    sa.Column("search_p99", sa.Double, nullable=True),
    sa.Column("seen", sa.Double, nullable=False),
)

state = sa.Table(
    "state",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(16), nullable=False),
    # What is imported: a path, below GPQ_IMPORT_FOLDER where services do it.
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # The process that is at it, and when it last said so.
    sa.Column("owner", sa.String(64), nullable=False),
    # Asked for by HTTP: services do it, and no command line waits for it.
    sa.Column("by_service", sa.Boolean, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=True),
    # SHA-256 of the names of all that are done, to go on after.
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    # How long it has been at work.
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("seen", sa.Double, nullable=False),
    sqlite_autoincrement=True,
)

job_failures = sa.Table(
    "job_failures",
    metadata,
    sa.Column("job", sa.Integer, sa.ForeignKey("jobs.number"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

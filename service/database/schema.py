"""Defines the tables. ``migrations`` creates them; a test checks that both agree.

images        one row for each image: what users store, and the feed number of its last put
models        one row for each model that has codes here; one of them is active
artifacts     the files of each model, so that every process can load it
codes         one row for each image and model: the packed code
feed          one row for each change, in commit order; every process applies it to its indexes
replicas      one row for each running process: what it has applied and how long its searches take
jobs          one row for each import and re-index: its progress and its process
job_failures  the entries that a job could not use, and why
keys          one row for each API key: what it may do, and the hash of its secret
filter_fields one row for each filter field, whose values are kept in order
filter_values the values of filter fields, by the seq of their images
copy_hashes   one row for each image whose perceptual hash is known, or cannot be computed
copy_groups   the images that are copies of each other, as the last job found them
mirrored      the entries of mirrored sources, and the images that they became
state         values that all processes share, such as the name of the database
"""

import sqlalchemy as sa

# SQLite gives AUTOINCREMENT (no reuse) to INTEGER keys only.
Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Ordered by code point, whatever the locale of the database.
ByCodePoint = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")

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
    # The codes table holds this number instead of the id. It is never reused, so that codes left
    # over from a deleted model cannot belong to another one.
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("active", sa.Boolean, nullable=False),
    # Whether every image has a code of it.
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("added", sa.String(32), nullable=False),
    # SHA-256 of its network.onnx; null if it has none, as models of earlier versions.
    sa.Column("graph", sa.String(64), nullable=True),
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
    # The seq of the codes that this change removes; the codes that it adds have its own seq.
    sa.Column("removes", sa.BigInteger, nullable=True),
    # The seq of the image whose metadata this change replaced; a trigger writes such changes.
    sa.Column("describes", sa.BigInteger, nullable=True),
    # Seconds since the epoch. A clock may be set back, so these need not ascend with seq.
    sa.Column("created", sa.Double, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)

replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("applied", sa.BigInteger, nullable=False),
    # Ids of the models whose codes it holds in memory, separated by spaces.
    sa.Column("models", sa.Text, nullable=False, server_default=""),
    # 99th percentile of its recent searches, in seconds; null if there were none.
    sa.Column("search_p99", sa.Double, nullable=True),
    sa.Column("seen", sa.Double, nullable=False),
)

state = sa.Table(
    "state",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

filter_fields = sa.Table(
    "filter_fields",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    # The seq up to which the values of images are there; null if all are, -1 if it is removed.
    sa.Column("filled", sa.BigInteger, nullable=True),
    sqlite_autoincrement=True,
)

filter_values = sa.Table(
    "filter_values",
    metadata,
    # Negative: the image has too many values, and counts as within every bound.
    sa.Column("field", sa.Integer, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False, index=True),
    # One of these: a number (of a boolean 0 or 1), or the beginning of a string and the moment
    # that it names, if any, in seconds since the epoch.
    sa.Column("number", sa.Double, nullable=True),
    sa.Column("text", ByCodePoint, nullable=True),
    sa.Column("moment", sa.Double, nullable=True),
    sa.Index("ix_filter_values_number", "field", "number", "seq"),
    sa.Index("ix_filter_values_text", "field", "text", "seq"),
    sa.Index("ix_filter_values_moment", "field", "moment", "seq"),
)

copy_hashes = sa.Table(
    "copy_hashes",
    metadata,
    # In commit order, by which every process follows the table.
    sa.Column("number", Sequence, primary_key=True, autoincrement=True),
    sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    # From 0 for a plain image to 100; -1 if the hash cannot be computed, which is empty then.
    sa.Column("quality", sa.Integer, nullable=False),
    sqlite_autoincrement=True,
)

copy_groups = sa.Table(
    "copy_groups",
    metadata,
    # The job that found it; readers see the groups of the last one that ended.
    sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
    # The seq of the first image of the group, which is a member too.
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
)

mirrored = sa.Table(
    "mirrored",
    metadata,
    # The path or the URL of an import.
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("id", sa.String(128), primary_key=True, index=True),
    # The name of the entry in the source.
    sa.Column("name", sa.Text, nullable=False),
    # Of the bytes that were stored: an image with others is not the source's any more.
    sa.Column("sha256", sa.String(64), nullable=False),
    # Changes when the entry does; "" if the source does not tell.
    sa.Column("stamp", sa.Text, nullable=False),
    # The last pass over the source that has seen the entry.
    sa.Column("pass", sa.BigInteger, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(16), nullable=False),
    # The path that an import reads; relative to GPQ_IMPORT_FOLDER if a service runs the job.
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # The process that runs the job; ``seen`` is the time of its last report.
    sa.Column("owner", sa.String(64), nullable=False),
    # Requested over HTTP: a service runs the job, and no command waits for it.
    sa.Column("by_service", sa.Boolean, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=True),
    # SHA-256 of the names of all entries done, by which an interrupted job continues.
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    # Seconds that processes worked on the job.
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

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(64), nullable=False),
    # SHA-256 of the secret, in hex. A secret has 256 random bits, so it needs no slow hash.
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    # Separated by spaces.
    sa.Column("scopes", sa.String(64), nullable=False),
    # What the ids must begin with that the key may read and write.
    sa.Column("prefix", sa.String(128), nullable=False),
    # Seconds since the epoch.
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double, nullable=True),
    sa.Column("revoked", sa.Double, nullable=True),
    sa.Column("used", sa.Double, nullable=True),
    sqlite_autoincrement=True,
)

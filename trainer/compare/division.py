"""Divides the images of a user: those to learn from, those to search, and the queries."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trainer.data.image_sets import LABELLED, MISSPELT, UNLABELLED
from trainer.data.image_sets import PARTS as SPLITS
from trainer.data.listing import Listing, class_folders, images_below, is_manifest, manifest
from trainer.errors import TrainerError

PARTS = SPLITS | MISSPELT.keys()  # folders that are no classes
QUERY_SHARE, MOST_QUERIES = 0.2, 1000


@dataclass(frozen=True)
class Division:
    """Images that methods learn from, with labels and without, and images that they have not seen:
    the queries, and the database that is searched for them."""

    learn: Listing
    unlabelled: Listing
    queries: Listing
    database: Listing

    @property
    def classes(self) -> tuple[str, ...]:
        return self.learn.classes


def divide(source: Path) -> Division:
    """Divides a folder, or a CSV or Parquet table.

    ``train/<class>/*`` is learnt from, and ``test/<class>/*`` has the queries, one in five, and the
    database. So do the splits of a table, if it has ``database`` and ``query``. Without them every
    fifth image is a query, and the others are learnt from and searched in turns. What a folder has
    in ``unlabeled/**``, and a table without labels, is learnt from, too. Raises TrainerError.
    """
    division = _of_table(source) if is_manifest(source) else _of_folder(source)
    if len(division.classes) < 2:
        raise TrainerError(
            f"{source} has images of {len(division.classes)} class(es) to learn from; give at "
            "least two"
        )
    others = {*division.queries.classes, *division.database.classes}
    foreign = sorted(others - set(division.classes))
    if foreign:
        raise TrainerError(
            f"{source}: {', '.join(foreign[:10])}: there are images of these classes to search, "
            "but none to learn from"
        )
    if not len(division.queries) or not len(division.database):
        raise TrainerError(f"{source}: too few images to search for any")
    return division


def in_turns(listing: Listing) -> tuple[Listing, Listing, Listing]:
    """Returns the images to learn from, the queries and the database.

    Queries are evenly spaced over the files, MOST_QUERIES at most, but none comes before an image
    of its classes in each of the other parts. The other images of each class are learnt from and
    searched in turns, and the first one is learnt from.
    """
    count = len(listing)
    queries = min(MOST_QUERIES, int(QUERY_SHARE * count))
    parts: list[str] = []
    asked_for = 0
    learnt, searchable = Counter[str](), Counter[str]()
    for number, labels in enumerate(listing.labels, 1):
        is_due = asked_for < number * queries // count
        if is_due and all(learnt[name] and searchable[name] for name in labels):
            parts.append("query")
            asked_for += 1
            continue
        more_learnt = sum(learnt[name] - searchable[name] for name in labels) > 0
        is_searched = more_learnt and all(learnt[name] for name in labels)
        parts.append("database" if is_searched else "learn")
        (searchable if is_searched else learnt).update(labels)
    learn, asked, stored = (
        listing.where(part == name for part in parts) for name in ("learn", "query", "database")
    )
    return learn, asked, stored


def one_in_five(listing: Listing) -> tuple[Listing, Listing]:
    """Returns the queries and the database of images that are all unseen."""
    count = len(listing)
    queries = min(MOST_QUERIES, max(1, int(QUERY_SHARE * count)))
    chosen = [n * queries // count > (n - 1) * queries // count for n in range(1, count + 1)]
    return listing.where(chosen), listing.where(not query for query in chosen)


def _of_folder(root: Path) -> Division:
    for name, meant in MISSPELT.items():
        if (root / name).is_dir():
            raise TrainerError(f"{root / name} would be ignored: rename it to {meant}")
    unlabelled = images_below(root / UNLABELLED)
    if (root / "train").is_dir() and (root / "test").is_dir():
        queries, database = one_in_five(class_folders(root / "test"))
        return Division(class_folders(root / "train"), unlabelled, queries, database)
    listing = class_folders(root / LABELLED if (root / LABELLED).is_dir() else root)
    listing = listing.where(labels != {UNLABELLED} for labels in listing.labels)
    if parts := PARTS & set(listing.classes):
        raise TrainerError(
            f"{root} has {' and '.join(f'{name}/' for name in sorted(parts))}, which are no "
            "classes: give <class>/*, or both train/<class>/* and test/<class>/*"
        )
    learn, queries, database = in_turns(listing)
    return Division(learn, unlabelled, queries, database)


def _of_table(path: Path) -> Division:
    splits = manifest(path)
    labelled, unlabelled = splits["train"].labelled(), splits["train"].unlabelled()
    queries, database = splits["query"].labelled(), splits["database"].labelled()
    if len(queries) or len(database):
        if not len(queries) or not len(database):
            raise TrainerError(
                f"{path}: give rows with the split query and rows with the split database, or none "
                "of both"
            )
        counts = Counter(file for part in splits.values() for file in part.files)
        if twice := sorted(file for file, count in counts.items() if count > 1):
            raise TrainerError(f"{path}: {twice[0]} has several splits: give it one")
        return Division(labelled, unlabelled, queries, database)
    learn, queries, database = in_turns(labelled)
    return Division(learn, unlabelled, queries, database)

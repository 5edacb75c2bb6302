"""Opens the database and groups its tables. The database is the source of truth: all that
processes hold in memory follows it through the feed."""

from service.database.copies import CopyTable
from service.database.engine import Database
from service.database.feed import FeedTable
from service.database.fields import FieldTable
from service.database.images import ImageTable
from service.database.jobs import JobTable
from service.database.keys import KeyTable
from service.database.mirrors import MirrorTable
from service.database.models import ModelTable
from service.database.replicas import ReplicaTable
from service.database.state import StateTable


class Store:
    """The tables of one database, by subject. Raises ValueError for an unsupported URL."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.images = ImageTable(self.database)
        self.feed = FeedTable(self.database)
        self.fields = FieldTable(self.database)
        self.copies = CopyTable(self.database)
        self.models = ModelTable(self.database)
        self.replicas = ReplicaTable(self.database)
        self.jobs = JobTable(self.database)
        self.mirrors = MirrorTable(self.database)
        self.keys = KeyTable(self.database)
        self.state = StateTable(self.database)

    def close(self) -> None:
        """Closes all connections. No other call may be running."""
        self.database.close()

"""GPQ_IMPORT_FOLDER: what imports over HTTP may read, in a process that has it."""

from pathlib import Path

from service.jobs.sources import Source, SourceError, open_source
from service.settings import Settings

OFF = "imports over HTTP are off: set GPQ_IMPORT_FOLDER"


class ImportFolder:
    """Sources have names relative to it, as other processes may have it elsewhere, or not."""

    def __init__(self, settings: Settings) -> None:
        self.path, self.max_bytes = settings.import_folder, settings.max_body_bytes

    def name(self, source: str) -> str:
        """What every process that has the same folder finds it by. Raises SourceError where it
        is not there, or leads out of it."""
        self.open(source)
        return str(self._resolved(source).relative_to(self._resolved("")))

    def open(self, name: str) -> Source:
        """Raises SourceError where it cannot be read here."""
        try:
            return open_source(self._resolved(name), self.path, self.max_bytes)
        except (ValueError, OSError, RuntimeError) as error:  # odd names, circles of links
            raise SourceError(str(error)) from error

    def _resolved(self, name: str) -> Path:
        if self.path is None:
            raise SourceError(OFF)
        return (self.path / name).resolve()

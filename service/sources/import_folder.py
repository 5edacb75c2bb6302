"""Opens sources below GPQ_IMPORT_FOLDER, which imports over HTTP may read."""

from pathlib import Path

from service.errors import SourceError
from service.settings import Settings
from service.sources.opening import Source, open_source

OFF = "imports over HTTP are off: set GPQ_IMPORT_FOLDER"


class ImportFolder:
    """Sources are named relative to the folder, which other services may mount elsewhere."""

    def __init__(self, settings: Settings) -> None:
        self.path, self.max_bytes = settings.import_folder, settings.max_body_bytes

    def name(self, source: str) -> str:
        """Returns the name by which every service with the same folder finds a source.

        Raises SourceError if the source does not exist, or lies outside the folder.
        """
        self.open(source)
        return str(self._resolved(source).relative_to(self._resolved("")))

    def open(self, name: str) -> Source:
        """Opens a source. Raises SourceError if it cannot be read here."""
        try:
            return open_source(self._resolved(name), self.path, self.max_bytes, name)
        except OSError as error:  # its text has a path of this machine
            raise SourceError(f"{name}: {error.strerror}") from error
        except (ValueError, RuntimeError) as error:  # odd names, circles of links
            raise SourceError(f"{name} does not name a folder or file") from error

    def _resolved(self, name: str) -> Path:
        if self.path is None:
            raise SourceError(OFF)
        return (self.path / name).resolve()

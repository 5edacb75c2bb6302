"""The errors that the service raises on purpose.

The model's own errors (``gpq.errors``) lie beside them: a damaged image or artifact raises
those, whoever reads it. ``service.http.problems`` maps both to HTTP replies.

ServiceError
├── InvalidRequest        the caller sent something that cannot be used
│   ├── InvalidId         an image id with characters that ids cannot have
│   ├── DuplicateId       one id for two images of a request
│   ├── InvalidMetadata   metadata that is not a JSON object
│   ├── MetadataTooLarge  metadata over the size limit
│   ├── TooManyResults    a reply that would be too large
│   └── SourceError       an import source that cannot be read
├── NotFound
│   ├── NoSuchImage
│   ├── NoOriginal        the image exists, its original is not kept
│   ├── NoThumbnail       the original cannot be decoded any more
│   ├── NoSuchModel
│   └── NoSuchJob
├── Refused               the state of the catalogue does not allow the request
│   ├── ModelError        about a model
│   ├── JobError          about a job
│   └── DumpError         about an export, a restore or a backup
├── Busy                  too many requests are being handled
├── Unavailable           the service cannot answer now; the same request may succeed later
│   ├── WaitedTooLong     a queue did not give the request its turn in time
│   └── ModelChanged      another model became active, or was added, during the operation
├── StorageFull           a disk is full
└── NewerSchema           a newer version of this program migrated the database
"""


class ServiceError(Exception):
    """Base of all errors of the service. The message says what is wrong and what to do."""


class InvalidRequest(ServiceError):
    """The caller sent something that cannot be used."""


class InvalidId(InvalidRequest):
    """An image id has characters that ids cannot have."""


class DuplicateId(InvalidRequest):
    """Two images of one request have the same id."""


class InvalidMetadata(InvalidRequest):
    """The metadata of an image is not a JSON object."""


class MetadataTooLarge(InvalidRequest):
    """The metadata of an image is over the size limit."""


class TooManyResults(InvalidRequest):
    """The reply to a search would be too large."""


class SourceError(InvalidRequest):
    """An import source cannot be read, or cannot be read to its end."""


class NotFound(ServiceError):
    """The thing that the caller named does not exist."""


class NoSuchImage(NotFound):
    """No image has the given id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no image {id!r}")


class NoOriginal(NotFound):
    """The original of an image is not kept."""

    def __init__(self, id: str) -> None:
        super().__init__(f"the original of {id!r} is not kept here")


class NoThumbnail(NotFound):
    """The original of an image cannot be decoded any more."""


class NoSuchModel(NotFound):
    """No model has the given id, or an id that begins with it."""


class NoSuchJob(NotFound):
    """No job has the given number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no job {number}")


class Refused(ServiceError):
    """The state of the catalogue does not allow the request."""


class ModelError(Refused):
    """The state of a model does not allow the request."""


class JobError(Refused):
    """The state of a job does not allow the request."""


class DumpError(Refused):
    """A file cannot be exported, restored or backed up."""


class Busy(ServiceError):
    """The service handles as many requests as it may."""


class Unavailable(ServiceError):
    """The service cannot answer now; the same request may succeed later."""


class WaitedTooLong(Unavailable):
    """A queue did not give the request its turn in time."""

    def __init__(self) -> None:
        super().__init__("the request waited too long for its turn; try again")


class ModelChanged(Unavailable):
    """Another model became active, or was added, during the operation; it must be repeated."""


class StorageFull(ServiceError):
    """A disk is full."""


class NewerSchema(ServiceError):
    """A newer version of this program migrated the database."""

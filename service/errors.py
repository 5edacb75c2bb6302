"""The errors that the service raises on purpose.

``gpq.errors`` has the errors of the model, which the service raises too: for a damaged image, for
example. ``service.http.problems`` maps both to HTTP replies.

ServiceError
├── InvalidRequest        the request contains something that cannot be used
│   ├── InvalidId         an image id with characters that ids cannot have
│   ├── DuplicateId       two images of one request have the same id
│   ├── InvalidMetadata   metadata that is not a JSON object
│   ├── MetadataTooLarge  metadata over the size limit
│   ├── InvalidFilter     a filter that cannot be used
│   ├── UnknownClasses    an explanation by a model that knows no classes
│   ├── QueryOverflow     a query for which the model computes no finite scores
│   ├── InvalidCursor     a cursor that is not one of this service
│   ├── FetchRefused      an address of an image that may not be fetched
│   ├── FetchFailed       an image that its server does not give
│   ├── TooManyResults    a reply that would be too large
│   └── SourceError       an import source that cannot be read
├── NotFound
│   ├── NoSuchImage
│   ├── NoOriginal        the image exists, but its original is not kept
│   ├── NoThumbnail       the original cannot be decoded any more
│   ├── NoSuchModel
│   ├── NoSuchJob
│   ├── NoSuchKey
│   └── NoSuchField       no filter field has this name
├── Refused               the state of the catalogue does not allow the request
│   ├── ModelError        the state of a model does not allow it
│   ├── JobError          the state of a job does not allow it
│   ├── TooMuchGone       a source has lost most of its images
│   ├── FetchOff          images are not fetched from other servers
│   ├── CopiesOff         perceptual hashes are not kept
│   └── DumpError         a file cannot be exported, restored or backed up
├── Busy                  too many requests are being handled
├── Unavailable           the service cannot answer now; the same request may succeed later
│   ├── WaitedTooLong     a queue did not give the request its turn in time
│   ├── MaskOutdated      the mask of a search is too old
│   └── ModelChanged      the set of models, or the active one, is not the expected one
├── SlowBody              the body of the request comes too slowly
├── ClientGone            nobody waits for the reply any more
├── StorageFull           a disk is full
└── NewerSchema           a newer version of this program migrated the database (at start only)
"""


class ServiceError(Exception):
    """Base of all errors of the service.

    The message says what is wrong and, if possible, what to do.
    """


class InvalidRequest(ServiceError):
    """The request contains something that cannot be used."""


class InvalidId(InvalidRequest):
    """An image id has characters that ids cannot have."""


class DuplicateId(InvalidRequest):
    """Two images of one request have the same id."""


class InvalidMetadata(InvalidRequest):
    """The metadata of an image is not a JSON object, or not one that can be stored."""


class InvalidFilter(InvalidRequest):
    """A filter or a facet cannot be used; the message says which part of it, and why."""


class UnknownClasses(InvalidRequest):
    """A search is to be explained, but the model knows no classes."""


class QueryOverflow(InvalidRequest):
    """The model computes values for a query that are not finite or too large to be added."""


class InvalidCursor(InvalidRequest):
    """A cursor was not made by this service, or was changed."""


class MetadataTooLarge(InvalidRequest):
    """The metadata of an image is over the size limit."""


class FetchRefused(InvalidRequest):
    """The address of an image may not be fetched."""


class FetchFailed(InvalidRequest):
    """An image could not be fetched from its server."""


class TooManyResults(InvalidRequest):
    """The reply to a search would be too large."""


class SourceError(InvalidRequest):
    """An import source cannot be read, or cannot be read to its end."""


class NotFound(ServiceError):
    """What the caller named does not exist."""


class NoSuchImage(NotFound):
    """No image has the given id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no image {id!r}")


class NoOriginal(NotFound):
    """The original of an image is not kept."""

    def __init__(self, id: str) -> None:
        super().__init__(f"the original of {id!r} is not kept")


class NoThumbnail(NotFound):
    """The original of an image cannot be decoded any more."""


class NoSuchModel(NotFound):
    """No model id is, or begins with, the given one."""


class NoSuchJob(NotFound):
    """No job has the given number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no job {number}")


class NoSuchField(NotFound):
    """No filter field has the given name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no filter field {name!r}")


class NoSuchKey(NotFound):
    """No key has the given number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no key {number}")


class Refused(ServiceError):
    """The state of the catalogue does not allow the request."""


class ModelError(Refused):
    """The state of a model does not allow the request."""


class JobError(Refused):
    """The state of a job does not allow the request."""


class TooMuchGone(Refused):
    """So many images are gone from a source that they are not deleted without being asked for."""

    def __init__(self, gone: int, total: int) -> None:
        super().__init__(
            f"{gone} of {total} images are gone from the source. Nothing was deleted, in case a "
            "disk is not mounted; run it again with --delete-all to delete them"
        )


class CopiesOff(Refused):
    """Perceptual hashes are not kept here, so copies cannot be found."""

    def __init__(self) -> None:
        super().__init__("copies cannot be found, because GPQ_COPIES is off")


class FetchOff(Refused):
    """Images are not fetched from other servers."""

    def __init__(self) -> None:
        super().__init__("images are not fetched from other servers, because GPQ_FETCH is off")


class DumpError(Refused):
    """A file cannot be exported, restored or backed up."""


class Busy(ServiceError):
    """The service is already handling as many requests as it may."""


class Unavailable(ServiceError):
    """The service cannot answer now; the same request may succeed later."""


class WaitedTooLong(Unavailable):
    """A queue did not give the request its turn in time."""

    def __init__(self) -> None:
        super().__init__("the request waited too long for its turn; try again")


class MaskOutdated(Unavailable):
    """The mask of a search is too old for the changes since to be applied; it needs a new one."""

    def __init__(self) -> None:
        super().__init__("images change faster than they can be filtered; try again")


class ModelChanged(Unavailable):
    """The set of models, or the active one, is not the expected one. Repeat the operation."""


class SlowBody(ServiceError):
    """The body of the request comes too slowly."""


class ClientGone(ServiceError):
    """The client closed the connection, so that nobody waits for the reply."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection before the reply")


class StorageFull(ServiceError):
    """A disk is full."""


class NewerSchema(ServiceError):
    """A newer version of this program migrated the database."""

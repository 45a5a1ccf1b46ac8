"""What can go wrong in the demo.

Exception
├── DemoError        it cannot start: bad place, bad option, port in use; the message says what to do
├── DatabaseFailed   a statement failed; the cause says why, and never leaves the service
└── BadRequest       a client sent something wrong; the message is the answer
"""


class DemoError(Exception):
    """The demo cannot start; the message says what to do."""


class DatabaseFailed(Exception):
    """The database could not answer."""


class BadRequest(Exception):
    """A client sent something wrong.

    Attributes:
        field: which part of the request, where one can be named.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

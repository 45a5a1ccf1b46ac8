"""What can go wrong in the demo.

Exception
├── DemoError        it cannot start: bad place, bad option, port in use; the message says what to do
│   └── LineCut      the service broke a connection
├── DatabaseFailed   a statement failed; the cause says why, and never leaves the service
├── EditOvertaken    somebody else changed the same user meanwhile, in this process or in another
├── NoJournal        a burst was asked for without write-behind; the message is the answer
└── BadRequest       a client sent something wrong; the message is the answer
"""


class DemoError(Exception):
    """The demo cannot start; the message says what to do."""


class LineCut(DemoError):
    """The service broke a connection before it had answered."""


class EditOvertaken(Exception):
    """The user is not as they were when the edit was made; make it anew."""


class NoJournal(Exception):
    """There is no write-behind here."""


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

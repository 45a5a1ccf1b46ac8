"""What of a profile is one row of `users`: what an edit writes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

from sqlalchemy import Connection, select

from .profile import Profile
from .schema import users


@dataclass(frozen=True, slots=True)
class Person:
    """A row of `users`."""

    id: int
    name: str
    email: str
    city: str
    bio: str
    joined: date

    @classmethod
    def of(cls, profile: Profile) -> "Person":
        """Return the row behind a profile."""
        return cls(
            id=profile.id,
            name=profile.name,
            email=profile.email,
            city=profile.city,
            bio=profile.bio,
            joined=date.fromisoformat(profile.joined),
        )

    def shown_in(self, profile: Profile) -> Profile:
        """Return the profile with what can be edited as this row has it."""
        return replace(profile, name=self.name, email=self.email)


def read_people(connection: Connection, user_ids: Iterable[int]) -> list[Person]:
    """Return the rows of those users that there are."""
    found = connection.execute(select(users).where(users.c.id.in_(list(user_ids))).order_by(users.c.id))
    return [Person(**row) for row in found.mappings()]

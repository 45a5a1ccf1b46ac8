"""Invents the people of the demo, the same ones every time."""

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice

from . import names

Row = dict[str, object]

_FIRST_DAY = date(2022, 1, 1)
_DAYS = 4 * 365
_FOLLOWS_BACK = 0.35
_FIRST_SHOWN = 42


@dataclass(frozen=True, slots=True)
class Scale:
    """How many rows there are; everything else follows from the number of users."""

    users: int = 20_000
    random_seed: int = 20_240_229

    def __post_init__(self) -> None:
        """Refuse a population too small for ten follows each."""
        if self.users < 50:
            raise ValueError(f"users must be at least 50, got {self.users}")

    @property
    def posts(self) -> int:
        """Five for each user on average."""
        return self.users * 5

    @property
    def follows(self) -> int:
        """Ten for each user on average."""
        return self.users * 10

    @property
    def likes(self) -> int:
        """Nine for each user on average."""
        return self.users * 9

    @property
    def rows(self) -> int:
        """All rows together."""
        return self.users + self.posts + self.follows + self.likes


class Population:
    """Yields the rows of one scale, table by table.

    Popularity is skewed, as it is among people: the cube of a uniform number picks a few of them over and over.
    Each table has a generator of its own, so that one can change without the others.
    """

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        popular = list(range(1, scale.users + 1))
        self._random("popularity").shuffle(popular)
        # The first page that a visitor sees should be a full one.
        popular.remove(_FIRST_SHOWN)
        popular.insert(scale.users // 500, _FIRST_SHOWN)
        self._popular = popular

    def users(self) -> Iterator[Row]:
        """Yield everybody, numbered from 1."""
        dice = self._random("users")
        for number in range(1, self._scale.users + 1):
            given, family = dice.choice(names.GIVEN_NAMES), dice.choice(names.FAMILY_NAMES)
            yield {
                "id": number,
                "name": f"{given} {family}",
                "email": f"{_ascii(given)}.{_ascii(family)}{number}@example.org",
                "city": dice.choice(names.CITIES),
                "bio": f"{dice.choice(names.OCCUPATIONS)}. Fond of {' and '.join(dice.sample(names.PASTIMES, 2))}.",
                "joined": _FIRST_DAY + timedelta(days=dice.randrange(_DAYS // 2)),
            }

    def posts(self) -> Iterator[Row]:
        """Yield posts; the first ones are one for each user, so that no page is empty."""
        dice = self._random("posts")
        for number in range(1, self._scale.posts + 1):
            author = number if number <= self._scale.users else self._somebody(dice)
            words = dice.choice(names.OPENINGS), dice.choice(names.PASTIMES), dice.choice(names.CLOSINGS)
            yield {
                "id": number,
                "user_id": author,
                "body": " ".join(words),
                "created": _FIRST_DAY + timedelta(days=_DAYS // 2 + dice.randrange(_DAYS // 2)),
            }

    def follows(self) -> Iterator[Row]:
        """Yield who follows whom, often in both directions."""
        for follower, followee in islice(self._pairs_of_users(), self._scale.follows):
            yield {"follower_id": follower, "followee_id": followee}

    def likes(self) -> Iterator[Row]:
        """Yield who likes which post, none twice."""
        dice = self._random("likes")
        seen: set[tuple[int, int]] = set()
        while len(seen) < self._scale.likes:
            pair = dice.randint(1, self._scale.users), 1 + int(self._scale.posts * dice.random() ** 2)
            if pair not in seen:
                seen.add(pair)
                yield {"user_id": pair[0], "post_id": pair[1]}

    def _pairs_of_users(self) -> Iterator[tuple[int, int]]:
        dice = self._random("follows")
        seen: set[tuple[int, int]] = set()
        while True:
            follower, followee = dice.randint(1, self._scale.users), self._somebody(dice)
            pairs = [(follower, followee)]
            if dice.random() < _FOLLOWS_BACK:
                pairs.append((followee, follower))
            for pair in pairs:
                if follower != followee and pair not in seen:
                    seen.add(pair)
                    yield pair

    def _somebody(self, dice: random.Random) -> int:
        return self._popular[int(len(self._popular) * dice.random() ** 3)]

    def _random(self, table: str) -> random.Random:
        return random.Random(f"{self._scale.random_seed}/{table}")


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.replace("ø", "o").replace("ł", "l")).encode("ascii", "ignore").decode()
    return plain.replace("'", "").lower()

"""Reads what a client sends, and says which part of it is wrong."""

import json
import re
from typing import cast

from .errors import BadRequest

NAME_LENGTH = 120
EMAIL_LENGTH = 254

_NUMBER = re.compile(r"-?[0-9]{1,18}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def parse_id(text: str | None) -> int:
    """Return the id of a query string.

    Raises:
        BadRequest: it is missing or not a number.
    """
    if not text:
        raise BadRequest("missing id")
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"id must be a number, got {text[:40]!r}", field="id")
    return int(text)


def parse_edit(body: bytes) -> dict[str, str]:
    """Return the fields to change: name, e-mail or both.

    Raises:
        BadRequest: the body is wrong; `field` says where.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadRequest("body must be JSON", field="body") from exc
    if not isinstance(fields, dict):
        raise BadRequest("body must be a JSON object with name or email", field="body")
    fields = cast("dict[str, object]", fields)
    if unknown := sorted(fields.keys() - {"name", "email"}):
        raise BadRequest(f"{unknown[0][:40]!r} cannot be changed; send name or email", field=unknown[0][:40])
    if not fields:
        raise BadRequest("nothing to change; send name or email", field="body")
    return {field: _checked(field, value) for field, value in fields.items()}


def _checked(field: str, value: object) -> str:
    longest = NAME_LENGTH if field == "name" else EMAIL_LENGTH
    if not isinstance(value, str):
        raise BadRequest(f"{field} must be text", field=field)
    text = value.strip()
    if not text:
        raise BadRequest(f"{field} must not be empty", field=field)
    if len(text) > longest:
        raise BadRequest(f"{field} must have at most {longest} characters, got {len(text)}", field=field)
    if not text.isprintable():  # control characters, lone surrogates: databases differ about them
        raise BadRequest(f"{field} must be printable text", field=field)
    if field == "email" and not _EMAIL.fullmatch(text):
        raise BadRequest("email must look like name@example.org", field=field)
    return text

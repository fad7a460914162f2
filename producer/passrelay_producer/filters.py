"""Which accounts a producer captures."""

from passrelay_schemas.deny import denied

__all__ = ["denied"]

"""A section of a settings file, and where such files lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

if sys.platform == "win32":
    DEFAULT_DIRECTORY = Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "passrelay"
    STATE_DIRECTORY = DEFAULT_DIRECTORY / "spool"
else:
    DEFAULT_DIRECTORY = Path("/etc/passrelay")
    STATE_DIRECTORY = Path("/var/lib/passrelay")


class Section(BaseModel):
    """A table of the file; keys it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

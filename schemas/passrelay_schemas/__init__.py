"""What both ends agree on: event, envelope, sealing, order, marker, keyring, topology, verdicts, settings, errors."""

from importlib.metadata import version

__version__ = version("passrelay")

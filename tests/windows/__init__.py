"""The Windows notification DLL: its parts natively, the whole of it under wine."""

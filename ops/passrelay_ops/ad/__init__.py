"""The AD domain as the operator's tools see it: read over LDAPS, never written."""

"""The operator's tools: command line, topology, dead letters, keys, status."""

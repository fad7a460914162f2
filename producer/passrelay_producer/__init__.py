"""The producer: capture, seal, spool, then sign and publish; one process on each domain controller."""

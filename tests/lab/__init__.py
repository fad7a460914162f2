"""Real servers in throw-away folders on loopback: one module per server, used by demo, tests, bench and faults."""

"""`./run demo`: password changes in a real AD become working passwords in a real directory, faults included."""

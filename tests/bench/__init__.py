"""`./run bench`: passrelay end to end against what the directory can do by itself, in one run on one machine."""

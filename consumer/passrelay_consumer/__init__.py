"""The consumer: consume, open, find, order, write, after-write, verdict; any number of processes near IdM."""

"""`passrelay watch`: what no producer and no consumer can know, as metrics."""

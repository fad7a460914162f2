"""`passrelay audit`: AD's password version of every user against what IdM's entry carries."""

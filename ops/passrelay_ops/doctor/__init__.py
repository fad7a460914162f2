"""`passrelay doctor`: every step of the set-up, looked at and decided; one module a subject."""

"""Setting an IdM server up for passrelay: what is wanted, what is there, and what is to be changed."""

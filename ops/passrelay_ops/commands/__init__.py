"""The sub-commands: thin functions that read settings, call what does the work, and say what came out."""

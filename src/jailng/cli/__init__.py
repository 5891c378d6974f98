"""The commands: each parses its arguments, prints, and returns its exit status."""

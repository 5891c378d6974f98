"""jail(8) itself: the order of its steps, and the commands that it runs on the host and in the jail."""

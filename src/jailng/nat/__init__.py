"""ipnat(8): the rules of network address translation, and what executes them."""

"""What the BSD kernel does: jail_set, jail_get, jail_attach and jail_remove."""

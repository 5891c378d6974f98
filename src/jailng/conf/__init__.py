"""Configuration files: jail.conf(5), fstab(5), devfs.rules(5). What they say, with no knowledge of the kernel."""

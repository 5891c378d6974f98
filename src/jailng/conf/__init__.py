"""Configuration as text: jail.conf(5), fstab(5), devfs.rules(5). Pure: it is given text, and opens nothing."""

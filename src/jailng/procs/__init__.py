"""What runs on the host and in its jails: processes and sockets, as /proc tells of them."""

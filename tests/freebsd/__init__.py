"""FreeBSD's own tests, run as they are: see __main__."""

"""jailctl's verbs, one module each: ``USAGE``, and ``main(argv)``, which returns the status; and what is under them."""

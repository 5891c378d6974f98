"""Attempts of a hostile root that ``jailctl audit`` does not make: too rough, or too slow, for a host at work.

Programs that run inside a jail, with Python, and the module of the audit's that calls the kernel.
"""

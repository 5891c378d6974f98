"""Attempts of a hostile root: programs that run inside a jail, with Python and nothing else.

``python3 -m probes`` reads facts about the host, makes every attempt and prints what came of each; docs/attacks.md says
what they show. A copy of this directory is all that a jail needs of it.
"""

"""The public face of jailng for Python programs: ``import jailng`` hands out what stands here (docs/python.md).

Nothing here forks, changes a directory, joins a namespace or reaps a child: all of that is done by the program's worker
(engine/worker.py). So a program may have threads, event loops and children of its own.
"""

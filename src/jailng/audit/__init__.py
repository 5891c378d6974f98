"""``jailctl audit``: what root inside a container can do, tried.

Two halves. What is tried runs inside, with Python and nothing else: ``probe``, ``numbers``, ``inside`` and a module
for each class (``files``, ``mounts``, ...), which import one another and no other part of jailng. What is put up for it
to find, how it comes in, and what follows from what it says is the host's: ``planted``, ``bundle``, ``enter``,
``join``, ``kernel``, ``catalogue``, ``expected`` and ``report``.

The modules of the first half are never told what is the host's own: they send what they see, and the host compares. All
that they send may be a hostile root's word.
"""

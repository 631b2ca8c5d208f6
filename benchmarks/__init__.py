"""Measured comparisons: ``python -m benchmarks``, or ``make bench``.

Absolute numbers differ from machine to machine and from minute to minute. Whatever is compared
is therefore measured in turns, in rounds of one run, and compared round by round; the table has
medians and the lowest and highest of the rounds. Nothing here is asserted by the tests.
"""

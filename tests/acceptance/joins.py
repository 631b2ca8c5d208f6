"""Statements that take long, on every server: not all have MariaDB's tables of sequences.

Nor do all of them join tables of their own to count the rows: MySQL multiplies what it knows.
"""

_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"

#: Ends in no test, and can be killed at any moment.
ENDLESS = f"{_NUMBERS} SELECT COUNT(*) FROM n a, n b, n c, n d"

#: Takes some milliseconds.
SHORT = f"{_NUMBERS} SELECT COUNT(*) FROM n a, n b WHERE b.i <= 90"

"""Statements that take long, on every server: not all have MariaDB's tables of sequences.

Nor do all of them join tables of their own to count the rows: MySQL multiplies what it knows.
"""


def numbers(count: int) -> str:
    """Give the numbers from 1 to `count`, at most 1,000, as `n.i` to the SELECT that follows."""
    return f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


#: Ends in no test, and can be killed at any moment.
ENDLESS = f"{numbers(1000)} SELECT COUNT(*) FROM n a, n b, n c, n d"

#: Takes some milliseconds.
SHORT = f"{numbers(1000)} SELECT COUNT(*) FROM n a, n b WHERE b.i <= 90"

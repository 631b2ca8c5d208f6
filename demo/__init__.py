"""A believable fleet of tenants, some of them broken on purpose.

``python -m demo init`` makes the databases, ``lock`` holds a lock on one of them, and ``show``
makes a fleet, runs the real command on it and holds what happened against what was planted.

The same arguments give the same rows and files: each table of each tenant has a random generator
of its own, seeded by its names, and no clock is asked. Rows that stand on a boundary of a shipped
job are there in every tenant, so that its slot is the instant given as ``--at``. Only deliveries
go by the clock: what is to be sent later waits for a hundred years.

``show`` runs every job, sends what they have queued, and runs the same slot once more. How each
job ends, how many items it could not do, and that nothing is done twice is held against
``expectations``.

Where a defect cannot be planted alike on both kinds of server:

- ``locked`` holds rows of one table on MariaDB, so that a job which writes them fails. SQLite
  locks whole files against writers, so that every job which writes anything fails. Readers
  pass on both: the files are in WAL mode, as an application that serves users has them.
- ``unreachable`` is a port on which nothing listens on MariaDB, and on SQLite a file in what
  is no folder.
- A file of garbage, ``agency_corrupt``, is there on SQLite only.
"""

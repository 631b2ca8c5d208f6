"""What Prometheus gets: families made from the ledger, and the ways on which they travel.

The ledger is the truth. ``families`` renders one reading of it, ``server`` answers scrapes
with it, ``sinks`` deliver it at the end of a run. ``listener`` only counts what no ledger row
says. ``docs/metrics.md`` is the public description.

Import from the modules: only ``listener`` is cheap, the others load prometheus_client or an
HTTP library, which a run without metrics should not pay for.
"""

"""What Celery's worker loads."""

from benchmarks.queueing import make_app

app = make_app()

"""Private servers for tests: the real programs, on free ports of the loopback.

Each server has a folder of its own below `.cache/run/`, dies with the process that started it, and
is removed by `remove()`. What a killed test process left behind is swept away by the next one.
"""

from tests.servers.certificates import write_certificates
from tests.servers.database import DatabaseServer, quote
from tests.servers.galera import Galera
from tests.servers.general_log import LogEntry
from tests.servers.http_server import Answer, Asked, HttpServer
from tests.servers.mail import MailServer
from tests.servers.mariadb import MariaDB
from tests.servers.mysql import MySQL
from tests.servers.process import HOST, free_port
from tests.servers.prometheus import Prometheus, promtool
from tests.servers.silent import SilentServer

__all__ = [
    "HOST",
    "Answer",
    "Asked",
    "DatabaseServer",
    "Galera",
    "HttpServer",
    "LogEntry",
    "MailServer",
    "MariaDB",
    "MySQL",
    "Prometheus",
    "SilentServer",
    "free_port",
    "promtool",
    "quote",
    "write_certificates",
]

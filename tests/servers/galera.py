"""A Galera cluster of MariaDB servers on the loopback."""

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from tests.servers.mariadb import MariaDB
from tests.servers.process import HOST, free_port

_PROVIDER = Path("/usr/lib/libgalera_smm.so")
_JOIN_SECONDS = 30.0


class Node(MariaDB):
    """A node of a cluster: the first of it, or one that joins its `peers`."""

    defaults: ClassVar = MariaDB.defaults | {
        "wsrep_on": "ON",
        "wsrep_node_address": HOST,
        "wsrep_sst_method": "copy",
        "binlog_format": "ROW",
        "innodb_autoinc_lock_mode": 2,
    }

    def __init__(self, cluster: str, peers: str = "") -> None:
        if not _PROVIDER.exists():
            raise RuntimeError("Galera is not on this machine; run `scripts/servers galera`")
        port = free_port()
        self.group = f"{HOST}:{port}"
        provider = (
            f"base_port={port};gmcast.listen_addr=tcp://{self.group};"
            f"ist.recv_addr={HOST}:{free_port()};gcache.size=16M"
        )
        super().__init__(
            wsrep_provider=str(_PROVIDER),
            wsrep_cluster_name=cluster,
            wsrep_cluster_address=f"gcomm://{peers}",
            wsrep_provider_options=provider,
        )

    @classmethod
    def command(cls) -> Sequence[str]:
        """Start it with our own script for the transfer of state on its path."""
        path = os.pathsep.join(
            [str(Path(__file__).parent / "bin"), os.environ.get("PATH", os.defpath)]
        )
        return ["env", f"PATH={path}", *super().command()]

    def status(self, name: str) -> str:
        """Return one of the values of SHOW STATUS."""
        ((_, value),) = self.execute("SHOW STATUS LIKE %s", (name,))
        return str(value)

    @property
    def is_synced(self) -> bool:
        return (
            self.status("wsrep_local_state_comment") == "Synced"
            and self.status("wsrep_cluster_size") == "2"
        )


class Galera:
    """A cluster of two nodes, which have all databases and accounts in common."""

    def __init__(self) -> None:
        name = secrets.token_hex(8)
        self.nodes = [Node(name)]
        try:
            self.nodes.append(Node(name, self.nodes[0].group))
            self._await()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """End the nodes and delete their folders."""
        for node in self.nodes:
            node.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _await(self) -> None:
        deadline = time.monotonic() + _JOIN_SECONDS
        while not all(node.is_synced for node in self.nodes):
            if time.monotonic() > deadline:
                said = "\n".join(node.output.read_text()[-4000:] for node in self.nodes)
                raise RuntimeError(f"the nodes did not become a cluster:\n{said}")
            time.sleep(0.02)

"""What the tests of this folder share: the servers that they start."""

from tests.cluster.postgresql import postgresql
from tests.cluster.seaweedfs import loopback, namespace, prefix, seaweedfs

__all__ = ["loopback", "namespace", "postgresql", "prefix", "seaweedfs"]

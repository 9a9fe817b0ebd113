"""What the tests of this folder share: the store that they start."""

from tests.cluster.seaweedfs import loopback, namespace, prefix, seaweedfs

__all__ = ["loopback", "namespace", "prefix", "seaweedfs"]

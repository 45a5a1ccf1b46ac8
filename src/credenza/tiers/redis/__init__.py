"""The tier that processes of many machines share: Redis or Valkey, alone, behind Sentinel, or a Cluster."""

from .tier import RedisTier

__all__ = ["RedisTier"]

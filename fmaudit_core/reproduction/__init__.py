"""Published figures of an audit on INSPECT, and this audit's beside them."""

//! Talos machine-config documents that survive a round trip byte for byte.

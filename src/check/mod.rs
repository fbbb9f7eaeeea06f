//! The checks, one file each, and their registry.

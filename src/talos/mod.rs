//! Adapter to the Talos machine API.

//! Adapter to the Kubernetes API.

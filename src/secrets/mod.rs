//! SOPS documents over age.

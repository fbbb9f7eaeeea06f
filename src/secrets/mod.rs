//! SOPS documents over age: reads and writes what `sops` reads and writes (file format of sops 3.13).
//!
//! Supported: YAML of several documents, JSON and binary files; X25519 age recipients in one key group; all six
//! selectors; `mac_only_encrypted`. The MAC is always verified. Plain text lives in types that wipe themselves and
//! shows in no `Debug`, no log and no error.

mod age;
mod config;
mod kubernetes;
mod mac;
mod metadata;
mod sops;
mod splice;
mod tree;
mod value;

pub use age::{Environment, Identities, NewKey, Recipient};
pub use config::{creation_rule, settings_for};
pub use kubernetes::{KubeSecret, kubernetes_secrets, load_kubernetes_secrets};
pub use metadata::Selector;
pub use sops::{Decrypted, Format, Settings, decrypt, encrypt, is_encrypted, update_keys};

//! SOPS documents over age: reads and writes what `sops` reads and writes (file format of sops 3.13).
//!
//! Supported: YAML of several documents, JSON and binary files; age recipients, classic and post-quantum ones, in one key
//! group; all six selectors; `mac_only_encrypted`. The MAC is always verified. Plain text lives in types that wipe themselves and
//! shows in no `Debug`, no log and no error.

mod age;
mod config;
mod gap;
mod hybrid;
mod kubernetes;
mod mac;
mod metadata;
mod recipient;
mod sops;
mod splice;
mod tree;
mod value;
mod xwing;

pub use age::{Environment, Identities, NewKey};
pub use config::{creation_rule, settings_for};
pub use kubernetes::{KubeSecret, kubernetes_secrets, load_kubernetes_secrets};
pub use metadata::Selector;
pub use recipient::Recipient;
pub use sops::{Decrypted, Format, Settings, decrypt, encrypt, is_encrypted, update_keys};

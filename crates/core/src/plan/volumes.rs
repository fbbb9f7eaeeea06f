//! The documents of volumes in a machine config: what is written, and what of one that exists must stay.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, context};
use secrecy::ExposeSecret;

use super::Passphrases;
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::{Encryption, EncryptionKey, MaxSize, Volume, VolumeType};
use crate::yaml::{Node, Stream, quote, string};

pub(super) const USER: &str = "UserVolumeConfig";
pub(super) const RAW: &str = "RawVolumeConfig";
pub(super) const EXISTING: &str = "ExistingVolumeConfig";

const TEMPLATES: [(&str, &str); 5] = [
    (USER, include_str!("../../../../talos-patches/user-volume.yaml.j2")),
    (RAW, include_str!("../../../../talos-patches/raw-volume.yaml.j2")),
    (EXISTING, include_str!("../../../../talos-patches/existing-volume.yaml.j2")),
    ("provisioning", include_str!("../../../../talos-patches/provisioning.yaml.j2")),
    ("encryption", include_str!("../../../../talos-patches/encryption.yaml.j2")),
];

pub(super) const fn document_kind(volume: &Volume) -> &'static str {
    match volume.kind {
        VolumeType::Partition | VolumeType::Disk | VolumeType::Directory => USER,
        VolumeType::Raw => RAW,
        VolumeType::Existing => EXISTING,
    }
}

/// Whether its document holds a passphrase.
pub(super) fn has_passphrase(volume: &Volume) -> bool {
    let keys = volume.encryption.iter().flat_map(|encryption| &encryption.keys);
    keys.into_iter().any(|key| matches!(key, EncryptionKey::Static(_)))
}

/// The whole document of a volume on what `selector` finds.
pub(super) fn document(volume: &Volume, selector: &str, passphrases: &Passphrases) -> Result<String> {
    let kind = volume.kind;
    let sized = matches!(kind, VolumeType::Partition | VolumeType::Raw);
    let formatted = matches!(kind, VolumeType::Partition | VolumeType::Disk);
    let keys =
        volume.encryption.as_ref().map(|encryption| keys(volume, encryption, passphrases)).transpose()?;
    render(
        volume,
        &context! {
            // Partition is what Talos takes when nothing is said, and all that it knows before 1.12.
            type => matches!(kind, VolumeType::Disk | VolumeType::Directory).then(|| kind.name()),
            match => (kind != VolumeType::Directory).then(|| single_quoted(selector)),
            min_size => volume.min_size.filter(|_| sized).map(|size| size.to_string()),
            max_size => volume.max_size.filter(|_| sized).map(|size| size.to_string()),
            filesystem => formatted.then(|| volume.filesystem.kind.name()),
            project_quota => volume.filesystem.project_quota,
            keys,
        },
    )
}

/// What may change in the document of a volume that exists.
pub(super) fn changes(volume: &Volume) -> Result<String> {
    let most = volume.max_size.filter(|_| volume.grow == Some(true));
    render(volume, &context! { max_size => most.map(|size| size.to_string()) })
}

fn render(volume: &Volume, more: &minijinja::Value) -> Result<String> {
    static COMPILED: LazyLock<Result<Environment<'static>, minijinja::Error>> = LazyLock::new(|| {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        for (name, text) in TEMPLATES {
            templates.add_template(name, text)?;
        }
        Ok(templates)
    });
    let failed = |e: &minijinja::Error| Error::failed(format!("talos-patches: {}", e.kind()));
    let templates = COMPILED.as_ref().map_err(failed)?;
    let failed = |e: minijinja::Error| failed(&e);
    let template = templates.get_template(document_kind(volume)).map_err(failed)?;
    let mount = &volume.mount;
    // As text: a bool would be written `True`.
    let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
    let values = context! {
        name => string(&volume.name),
        grow => flag(volume.grow),
        read_only => flag(mount.read_only),
        disable_access_time => flag(mount.disable_access_time),
        secure => flag(mount.secure),
        trim => volume.trim.map(|every| every.to_string()),
        scrub => volume.scrub.map(|every| every.to_string()),
        ..more.clone()
    };
    template.render(values).map_err(failed)
}

/// The keys as Talos writes them, one a line.
fn keys(volume: &Volume, encryption: &Encryption, passphrases: &Passphrases) -> Result<Vec<String>> {
    let key = |key: &EncryptionKey| match key {
        EncryptionKey::NodeId => Ok("nodeID: {}".to_owned()),
        EncryptionKey::Tpm => Ok("tpm: {}".to_owned()),
        EncryptionKey::Kms(kms) => Ok(format!("kms: {{endpoint: {}}}", quote(&kms.endpoint))),
        EncryptionKey::Static(from) => {
            let passphrase = passphrases.get(from).ok_or_else(|| {
                let (file, key) = (from.file.display(), &from.key);
                Error::invalid(format!("volume {}: the passphrase {key} of {file} was not read", volume.name))
            })?;
            Ok(format!("static: {{passphrase: {}}}", quote(passphrase.expose_secret())))
        }
    };
    encryption.keys.iter().map(key).collect()
}

fn single_quoted(text: &str) -> String {
    if text.chars().any(char::is_control) { quote(text) } else { format!("'{}'", text.replace('\'', "''")) }
}

/// The root of the volume's document in the config, if it is there as what the file says it is.
pub(super) fn there(doc: &ConfigDoc, volume: &Volume) -> Result<Option<Node>> {
    let wanted = document_kind(volume);
    for kind in [USER, RAW, EXISTING] {
        if let Some(text) = doc.get_document(kind, &volume.name) {
            if kind != wanted {
                let (name, said) = (&volume.name, volume.kind.name());
                return Err(Error::refused(format!(
                    "volume {name} is a {kind} in the machine config, the file says type {said}"
                ))
                .hint("what a volume is can't be changed; give the new one another name"));
            }
            let stream = Stream::parse(text)?;
            return Ok(stream.documents().first().map(|document| document.root.clone()));
        }
    }
    Ok(None)
}

/// A volume that exists is left as it is; what is different here would need it to be made anew.
pub(super) fn same(volume: &Volume, there: &Node, wanted: &str) -> Result<()> {
    let wanted = Stream::parse(wanted)?;
    let Some(wanted) = wanted.documents().first().map(|document| &document.root) else { return Ok(()) };
    let text = |node: &Node, path: &[&str], default: Option<&str>| -> Option<String> {
        let text = node.get(path).filter(|node| !node.is_null()).and_then(Node::text).or(default)?;
        Some(MaxSize::parse(text).map_or_else(|_| text.to_owned(), |size| size.to_string()))
    };
    let formatted = matches!(volume.kind, VolumeType::Partition | VolumeType::Disk);
    let xfs = formatted.then_some("xfs");
    let kept: [(&[&str], Option<&str>); 5] = [
        (&["volumeType"], Some("partition")),
        (&["provisioning", "minSize"], None),
        (&["provisioning", "maxSize"], None),
        (&["filesystem", "type"], xfs),
        (&["filesystem", "projectQuotaSupport"], Some("false")),
    ];
    for (path, default) in kept {
        let (have, want) = (text(there, path, default), text(wanted, path, default));
        let grows = path.ends_with(&["maxSize"]) && volume.grow == Some(true) && want.is_some();
        if have != want && !grows {
            let show = |value: Option<String>| value.unwrap_or_else(|| "not set".into());
            let key = path.join(".").replace("provisioning.", "");
            let (have, want) = (show(have), show(want));
            return Err(Error::refused(format!(
                "volume {} exists with {key} {have}, the file says {want}",
                volume.name
            ))
            .hint("nodeprep does not change a volume that exists; set the file to what is there"));
        }
    }
    let (have, want) = (there.get(&["encryption"]), wanted.get(&["encryption"]));
    let equal = match (have, want) {
        (Some(have), Some(want)) => have.means(want),
        (have, want) => have.is_none_or(Node::is_null) && want.is_none(),
    };
    if equal {
        return Ok(());
    }
    Err(Error::refused(format!("volume {} exists with other encryption than the file says", volume.name))
        .hint("the keys of a volume that exists can't be changed here; set the file to what is there"))
}

//! What a selector can name: the fields of a disk, the units, `system_disk` and `glob`, since which Talos, and their
//! values for one disk (siderolabs/talos, pkg/machinery/cel/celenv and api/resource/definitions/block/block.proto).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, ListExpr, LiteralValue};
use cel::{Context, Env, Value};

use super::types::Type;
use crate::model::disks::Disk;
use crate::model::resources::DiskSpec;

/// Major and minor version of Talos.
pub type Release = (u64, u64);

/// The newest Talos whose selectors are known here.
pub const NEWEST: Release = (1, 14);

/// The first Talos with `glob`.
pub(super) const GLOB_SINCE: Release = (1, 9);

/// The largest plausible text and list of texts of a disk, for an estimate of what an evaluation costs.
pub(super) const TEXT: u64 = 128;
pub(super) const TEXTS: u64 = 16;

/// Constants, all uint.
pub(super) const UNITS: [(&str, u64); 12] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
];

/// How a field is read; tells its type as well.
#[derive(Debug, Clone, Copy)]
pub(super) enum Read {
    Bool(fn(&DiskSpec) -> bool),
    Uint(fn(&DiskSpec) -> u64),
    Text(fn(&DiskSpec) -> &str),
    Texts(fn(&DiskSpec) -> &[String]),
}

/// A field of `disk`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The first minor version of Talos 1 that has it.
    pub(super) since: u64,
    pub(super) read: Read,
}

const fn field(name: &'static str, since: u64, read: Read) -> Field {
    Field { name, since, read }
}

pub(super) const FIELDS: [Field; 19] = [
    field("dev_path", 8, Read::Text(|disk| &disk.dev_path)),
    field("size", 8, Read::Uint(|disk| disk.size)),
    field("pretty_size", 8, Read::Text(|disk| &disk.pretty_size)),
    field("io_size", 8, Read::Uint(|disk| disk.io_size)),
    field("sector_size", 8, Read::Uint(|disk| disk.sector_size)),
    field("readonly", 8, Read::Bool(|disk| disk.readonly)),
    field("cdrom", 8, Read::Bool(|disk| disk.cdrom)),
    field("model", 8, Read::Text(|disk| &disk.model)),
    field("serial", 8, Read::Text(|disk| &disk.serial)),
    field("modalias", 8, Read::Text(|disk| &disk.modalias)),
    field("wwid", 8, Read::Text(|disk| &disk.wwid)),
    field("uuid", 9, Read::Text(|disk| &disk.uuid)),
    field("bus_path", 8, Read::Text(|disk| &disk.bus_path)),
    field("sub_system", 8, Read::Text(|disk| &disk.sub_system)),
    field("transport", 8, Read::Text(|disk| &disk.transport)),
    field("rotational", 8, Read::Bool(|disk| disk.rotational)),
    field("secondary_disks", 9, Read::Texts(|disk| &disk.secondary_disks)),
    field("symlinks", 10, Read::Texts(|disk| &disk.symlinks)),
    field("firmware_version", 14, Read::Text(|disk| &disk.firmware_version)),
];

impl Read {
    pub(super) fn kind(self) -> Type {
        match self {
            Self::Bool(_) => Type::Bool,
            Self::Uint(_) => Type::Uint,
            Self::Text(_) => Type::String,
            Self::Texts(_) => Type::list(Type::String),
        }
    }

    /// What a field holds that is not set.
    pub(super) fn unset(self) -> Expr {
        match self {
            Self::Bool(_) => Expr::Literal(LiteralValue::Boolean(false.into())),
            Self::Uint(_) => Expr::Literal(LiteralValue::UInt(0_u64.into())),
            Self::Text(_) => Expr::Literal(LiteralValue::String("".into())),
            Self::Texts(_) => Expr::List(ListExpr::default()),
        }
    }

    fn value(self, disk: &DiskSpec) -> Value {
        match self {
            Self::Bool(read) => read(disk).into(),
            Self::Uint(read) => read(disk).into(),
            Self::Text(read) => read(disk).into(),
            Self::Texts(read) => read(disk).to_vec().into(),
        }
    }
}

/// CEL's standard library without its optional values, which Talos does not have either.
pub(super) fn library() -> Arc<Env> {
    static LIBRARY: LazyLock<Arc<Env>> =
        LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));
    Arc::clone(&LIBRARY)
}

/// The names an expression can use, with their values for one disk.
pub(super) fn context(library: &Arc<Env>, disk: &Disk) -> Result<Context<'static, 'static>, String> {
    let mut context = Context::with_env(Arc::clone(library));
    let fields: HashMap<&str, Value> =
        FIELDS.iter().map(|field| (field.name, field.read.value(&disk.spec))).collect();
    context.add_variable_from_value("disk", fields);
    context.add_variable_from_value("system_disk", disk.system);
    for (name, value) in UNITS {
        context.add_variable_from_value(name, value);
    }
    let glob = |pattern: Arc<String>, text: Arc<String>| glob(&pattern, &text);
    context.add_function("glob", glob).map_err(|error| error.to_string())?;
    Ok(context)
}

/// Whether `text` matches `pattern`, in which `*` stands for anything and nothing else is special
/// (ryanuber/go-glob, which Talos uses).
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let tail = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match text.split_once(piece) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(tail)
}

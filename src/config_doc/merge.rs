//! What merging means, on values: the model every splice is measured against.

use crate::yaml::Value;

/// Merges `wanted` into `base` as Talos' strategic merge does for maps and scalars: maps by key, what is there and
/// not wanted stays, a wanted null asks for nothing.
pub(super) fn merge(base: &mut Value, wanted: &Value) {
    match (base, wanted) {
        (_, Value::Null) => {}
        (Value::Map(base), Value::Map(wanted)) => {
            for (key, want) in wanted {
                match base.iter_mut().find(|(have, _)| have == key) {
                    Some((_, have)) => merge(have, want),
                    None => base.push((key.clone(), want.clone())),
                }
            }
        }
        (base, wanted) => *base = wanted.clone(),
    }
}

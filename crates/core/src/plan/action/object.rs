//! What is done to one object of the cluster.

use super::Family;
use crate::model::object::{Deletion, Object};
use crate::plan::saved::Digest;

#[derive(Debug)]
pub enum ObjectAction {
    Apply(Object),
    /// The object, and what it owns, is gone before the step is done.
    Delete(Deletion),
    /// A namespace that this run made is gone with all that is in it, if it exists.
    DeleteRun {
        namespace: String,
        run: String,
    },
}

impl Family for ObjectAction {
    fn changes(&self) -> bool {
        true
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Apply(object) => {
                digest.text("object").text(&object.value.to_string()).text(&object.create_only.to_string())
            }
            Self::Delete(gone) => digest.text("delete").text(&format!("{gone:?}")),
            Self::DeleteRun { namespace, run } => digest.text("delete run").text(namespace).text(run),
        };
    }
}

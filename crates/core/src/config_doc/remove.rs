//! Taking a document out of a config; the others stay byte for byte.

use super::ConfigDoc;
use crate::error::Result;

impl ConfigDoc {
    /// Takes the document of this kind and name out, as `$patch: delete` does; false when it does not exist.
    ///
    /// # Errors
    /// The rest would not mean what it meant before: [`crate::error::Kind::Failed`], and nothing is changed.
    pub fn remove_document(&mut self, kind: &str, name: &str) -> Result<bool> {
        let index = self.documents().find(|document| document.id.is(kind, name)).map(|found| found.index);
        index.map_or(Ok(false), |index| self.remove_at(index).map(|()| true))
    }

    pub(super) fn remove_at(&mut self, index: usize) -> Result<()> {
        let Some(document) = self.stream.documents().get(index) else { return Ok(()) };
        let mut text = self.text().to_owned();
        text.replace_range(document.span.clone(), "");
        self.replace(text, index, None).map(drop)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LEGACY: &str = "version: v1alpha1 # kept\nmachine:\n    type: worker\n";
    const OTHER: &str = "---\n# about it\napiVersion: v1alpha1\nkind: Later\nkeep: {a: 1}\n";
    const VOLUME: &str =
        "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs\n# the end of it\n";

    #[test]
    fn one_document_goes_and_the_others_stay_byte_for_byte() {
        let table = [
            ("last", [LEGACY, OTHER, VOLUME].concat(), [LEGACY, OTHER].concat()),
            ("in the middle", [LEGACY, VOLUME, OTHER].concat(), [LEGACY, OTHER].concat()),
            ("first", [VOLUME, OTHER].concat(), OTHER.to_owned()),
            ("first, without a mark", [VOLUME.trim_start_matches("---\n"), OTHER].concat(), OTHER.to_owned()),
        ];
        for (name, before, after) in table {
            let mut doc = ConfigDoc::parse(&before).unwrap();
            assert!(doc.remove_document("UserVolumeConfig", "openebs").unwrap(), "{name}");
            assert_eq!(doc.text(), after, "{name}");
            assert!(!doc.remove_document("UserVolumeConfig", "openebs").unwrap(), "{name}: it is gone");
        }
    }

    #[test]
    fn nothing_but_the_document_of_this_kind_and_name_goes() {
        let text = [LEGACY, OTHER, VOLUME].concat();
        let mut doc = ConfigDoc::parse(&text).unwrap();
        for (kind, name) in
            [("UserVolumeConfig", "data"), ("RawVolumeConfig", "openebs"), ("Later", "x"), ("", "")]
        {
            assert!(!doc.remove_document(kind, name).unwrap(), "{kind} {name}");
        }
        assert_eq!(doc.text(), text);
    }
}

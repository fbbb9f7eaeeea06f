//! What is judged of objects that are waited for; pure, so it is in `judge`.

pub(super) use crate::judge::pods::{hint, last_words, of_workload, selector, silent, stuck};
pub(super) use crate::judge::velero::{location_lacks, schedule_hint, schedule_lacks};
pub(super) use crate::judge::workload::crd_lacks;

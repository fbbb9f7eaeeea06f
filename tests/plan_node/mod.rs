//! What one node is given: the documents in its machine config, its labels, and what is refused.

pub(crate) mod bench;
mod documents;
mod file;
mod foreseen;
mod golden;
mod labels;
mod laws;
mod volumes;

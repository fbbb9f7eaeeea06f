//! Pure planning: what differs between what is asked and what is there.

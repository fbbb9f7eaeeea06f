//! One file per verb: its arguments and its run.

//! What can be installed, one file per component.

//! What was asked for: `nodeprep.yaml`, typed and validated.

//! One lossless YAML document tree: text, style, comments, positions.

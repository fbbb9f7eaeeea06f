//! What is there: nodes and cluster, each part a Result.

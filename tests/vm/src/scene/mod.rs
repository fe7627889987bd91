//! What cases have in common.

//! The targets, one file each; a folder where several share a harness.

pub mod cache_against_reference;
pub mod cache_records;
pub mod management_call;
pub mod nbd;
pub mod nvme;
pub mod superblock;
pub mod trace;
pub mod uri;

//! Where bytes live: the devices that a volume can be made of.

pub mod address;

//! Host and target joined by the simulated network, in virtual time: what one says the other
//! understands, whatever the network does to it.

mod against_script;
#[cfg(feature = "auth")]
mod authentication;
mod commands;
mod cuts;
mod discovery;
mod discovery_script;
mod faults;
mod harness;
mod namespace_changes;
mod paths;
mod requests;
#[path = "../scripted/mod.rs"]
mod scripted;

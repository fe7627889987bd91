//! Host and target joined by the simulated network, in virtual time: what one says the other
//! understands, whatever the network does to it.

mod authentication;
mod commands;
mod cuts;
mod discovery;
mod faults;
mod harness;
mod requests;

//! One namespace behind several paths that are cut, silenced and come back: nothing acknowledged is
//! lost or overwritten, nobody waits longer than was said.

mod access;
mod anything;
mod failover;
mod history;
mod late_writes;
mod reconnect;
mod rig;
mod work;

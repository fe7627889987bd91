//! Layouts and numbers of NVMe over TCP, one file per chapter: pure functions between typed values
//! and byte arrays, little-endian throughout.
//!
//! ```text
//!   command    submission queue entries: admin, NVM and fabrics commands
//!   completion completion queue entries         status     what they say
//!   sgl        where a command's data travels   connect    the data of Connect
//!   property   the controller's registers       identify   controller, namespace, lists
//!   feature    Set/Get Features                 log_page   Get Log Page
//!   nqn        qualified names and host ids     reservation the data of reservation commands
//!   auth       authentication's messages
//! ```
//! Absent: PDUs (`crate::pdu`), state, and every command that neither end here uses.
//!
//! Citations: "Base" is NVM Express Base Specification 2.0, "NVM" the NVM Command Set Specification
//! 1.0; the NVMe/TCP Transport Specification is cited by its chapters' names.

pub mod auth;
pub mod command;
pub mod completion;
pub mod connect;
pub mod feature;
pub mod field;
pub mod identify;
pub mod log_page;
pub mod nqn;
pub mod property;
pub mod reservation;
pub mod sgl;
pub mod status;

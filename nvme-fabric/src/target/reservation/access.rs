//! Which commands a reservation keeps from whom: the table of Base §7 (Command Behavior in the
//! Presence of a Reservation), as three questions.
//!
//! ```text
//!                      who is not the holder, by kind of reservation
//!              WE          EA          WE registrants / all   EA registrants / all
//!   read       all may     nobody      all may                registrants may
//!   write      nobody      nobody      registrants may        registrants may
//! ```

use crate::spec::command::NvmCommand;
use crate::spec::reservation::ReservationKind;

/// What a command does with the namespace's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) enum Access {
    /// Nothing: reservation commands, which have rules of their own.
    None,
    /// The read group.
    Read,
    /// The write group.
    Write,
}

/// What a host is to a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) enum Standing {
    Holder,
    Registrant,
    Stranger,
}

impl Access {
    /// The group of a command. Flush is of the write group, and so is a copy, whose source lies
    /// under the same reservation. What is unknown is taken to be a write.
    pub(in crate::target) const fn of(command: &NvmCommand) -> Self {
        match command {
            NvmCommand::Read { .. } | NvmCommand::Compare { .. } | NvmCommand::Verify { .. } => {
                Self::Read
            }
            NvmCommand::Reservation(_) => Self::None,
            NvmCommand::Write { .. }
            | NvmCommand::WriteZeroes { .. }
            | NvmCommand::WriteUncorrectable { .. }
            | NvmCommand::DatasetManagement { .. }
            | NvmCommand::Copy { .. }
            | NvmCommand::Flush
            | NvmCommand::Other(_) => Self::Write,
        }
    }
}

/// Whether a host of this standing may do this under a reservation of this kind.
pub(super) const fn is_allowed(kind: ReservationKind, standing: Standing, access: Access) -> bool {
    use ReservationKind as Kind;
    match (access, standing) {
        (Access::None, _) | (_, Standing::Holder) => true,
        (Access::Read, Standing::Registrant) => !matches!(kind, Kind::ExclusiveAccess),
        (Access::Read, Standing::Stranger) => matches!(
            kind,
            Kind::WriteExclusive
                | Kind::WriteExclusiveRegistrantsOnly
                | Kind::WriteExclusiveAllRegistrants
        ),
        (Access::Write, Standing::Registrant) => {
            !matches!(kind, Kind::WriteExclusive | Kind::ExclusiveAccess)
        }
        (Access::Write, Standing::Stranger) => false,
    }
}

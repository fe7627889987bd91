//! Reservations: kinds, the data of reservation commands, the status that Report reads and the
//! notification log page. Base §8.19 says how they work together.
//!
//! Absent: the status with 64-bit host identifiers, which fabrics do not have.

use super::field::{bytes16_at, put, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};
use super::nqn::HostId;

/// RTYPE: what a reservation keeps from whom. Base §8.19, §7 (the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationKind {
    /// 1: only the holder writes.
    WriteExclusive = 1,
    /// 2: only the holder reads and writes.
    ExclusiveAccess = 2,
    /// 3: only registrants write.
    WriteExclusiveRegistrantsOnly = 3,
    /// 4: only registrants read and write.
    ExclusiveAccessRegistrantsOnly = 4,
    /// 5: only registrants write, and each of them is a holder.
    WriteExclusiveAllRegistrants = 5,
    /// 6: only registrants read and write, and each of them is a holder.
    ExclusiveAccessAllRegistrants = 6,
}

impl ReservationKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// The kind with this number.
    pub const fn parse(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::WriteExclusive,
            2 => Self::ExclusiveAccess,
            3 => Self::WriteExclusiveRegistrantsOnly,
            4 => Self::ExclusiveAccessRegistrantsOnly,
            5 => Self::WriteExclusiveAllRegistrants,
            6 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    /// Whether every registrant is a holder.
    pub const fn is_all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Whether registrants that are not holders are as free as the holder.
    pub const fn is_registrants_only(self) -> bool {
        matches!(self, Self::WriteExclusiveRegistrantsOnly | Self::ExclusiveAccessRegistrantsOnly)
    }
}

/// Bits of RESCAP. Base §5.17.2.1 (Identify Namespace).
pub mod capability {
    /// Bit 0: reservations may persist through power loss.
    pub const PERSISTENCE: u8 = 1 << 0;
    /// Bits 6:1: each of the six kinds.
    pub const KINDS: u8 = 0b0111_1110;
    /// Bit 7: Ignore Existing Key is as of version 1.3.
    pub const IGNORE_EXISTING_KEY: u8 = 1 << 7;
}

/// Bits of the reservation notification mask; a set one keeps the notification back. Base
/// §5.27.1.28.
pub mod notification_mask {
    /// Bit 1.
    pub const REGISTRATION_PREEMPTED: u32 = 1 << 1;
    /// Bit 2.
    pub const RESERVATION_RELEASED: u32 = 1 << 2;
    /// Bit 3.
    pub const RESERVATION_PREEMPTED: u32 = 1 << 3;
    /// All of them.
    pub const ALL: u32 = 0b1110;
}

/// The data of Register: 16 bytes. Base §7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RegisterKeys {
    /// CRKEY, bytes 0-7.
    pub current: u64,
    /// NRKEY, bytes 8-15.
    pub new: u64,
}

/// The data of Acquire: 16 bytes. Base §7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AcquireKeys {
    /// CRKEY, bytes 0-7.
    pub current: u64,
    /// PRKEY, bytes 8-15: whose registrants are to be preempted.
    pub preempt: u64,
}

/// Bytes of the data of Register and Acquire.
pub const KEYS_LENGTH: usize = 16;

/// Bytes of the data of Release: CRKEY.
pub const RELEASE_LENGTH: usize = 8;

impl RegisterKeys {
    /// The typed form.
    pub const fn parse(bytes: &[u8; KEYS_LENGTH]) -> Self {
        Self { current: u64_at(bytes, 0), new: u64_at(bytes, 8) }
    }

    /// The bytes of it.
    pub fn encode(self) -> [u8; KEYS_LENGTH] {
        let mut bytes = [0; KEYS_LENGTH];
        put_u64(&mut bytes, 0, self.current);
        put_u64(&mut bytes, 8, self.new);
        bytes
    }
}

impl AcquireKeys {
    /// The typed form.
    pub const fn parse(bytes: &[u8; KEYS_LENGTH]) -> Self {
        Self { current: u64_at(bytes, 0), preempt: u64_at(bytes, 8) }
    }

    /// The bytes of it.
    pub fn encode(self) -> [u8; KEYS_LENGTH] {
        RegisterKeys { current: self.current, new: self.preempt }.encode()
    }
}

/// Bytes of [`ReservationStatus`] without its registrants.
pub const STATUS_HEADER_LENGTH: usize = 64;
/// Bytes of one of its registrants.
pub const STATUS_ENTRY_LENGTH: usize = 64;
/// CNTLID of a registrant that has no controller. Base §7.5.
pub const CONTROLLER_NONE: u16 = 0xffff;

/// What Report reads with EDS set. Base §7.5.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ReservationStatus {
    /// GEN, bytes 0-3: counts changes of registrations.
    pub generation: u32,
    /// RTYPE, byte 4; absent when there is no reservation.
    pub kind: Option<ReservationKind>,
    /// PTPLS, byte 9: registrations and reservation persist.
    pub persists: bool,
    /// REGCTL, bytes 5-6: how many registered controllers there are, those that did not fit in
    /// the data included.
    pub count: u16,
    /// From byte 64: registered controllers.
    pub registered: Vec<RegisteredController>,
}

/// A controller whose host is a registrant, or a registrant without controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisteredController {
    /// CNTLID, bytes 0-1; [`CONTROLLER_NONE`] without one.
    pub controller_id: u16,
    /// RCSTS bit 0, byte 2: its host holds the reservation.
    pub is_holder: bool,
    /// RKEY, bytes 8-15.
    pub key: u64,
    /// HOSTID, bytes 16-31.
    pub host: HostId,
}

impl ReservationStatus {
    /// The typed form, of as many registrants as the bytes hold. Absent when there are fewer bytes
    /// than the header has.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, entries) = bytes.split_at_checked(STATUS_HEADER_LENGTH)?;
        let count = u16_at(header, 5);
        let entries = entries.chunks_exact(STATUS_ENTRY_LENGTH).take(count.into());
        Some(Self {
            generation: u32_at(header, 0),
            kind: ReservationKind::parse(header[4]),
            persists: header[9] & 1 != 0,
            count,
            registered: entries
                .map(|entry| RegisteredController {
                    controller_id: u16_at(entry, 0),
                    is_holder: entry[2] & 1 != 0,
                    key: u64_at(entry, 8),
                    host: HostId(bytes16_at(entry, 16)),
                })
                .collect(),
        })
    }

    /// The bytes of all of it.
    pub fn encode(&self) -> Vec<u8> {
        let length = STATUS_HEADER_LENGTH + self.registered.len() * STATUS_ENTRY_LENGTH;
        let mut bytes = vec![0; length];
        put_u32(&mut bytes, 0, self.generation);
        bytes[4] = self.kind.map_or(0, |kind| kind as u8);
        put_u16(&mut bytes, 5, self.count);
        bytes[9] = u8::from(self.persists);
        for (index, registered) in self.registered.iter().enumerate() {
            let at = STATUS_HEADER_LENGTH + index * STATUS_ENTRY_LENGTH;
            put_u16(&mut bytes, at, registered.controller_id);
            bytes[at + 2] = u8::from(registered.is_holder);
            put_u64(&mut bytes, at + 8, registered.key);
            put(&mut bytes, at + 16, &registered.host.0);
        }
        bytes
    }
}

/// Bytes of [`ReservationNotification`].
pub const NOTIFICATION_LENGTH: usize = 64;

/// What a notification tells. Base §5.16.1.25 (Reservation Notification Log Page Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationKind {
    /// 1: the host is no registrant any more; another one preempted it.
    RegistrationPreempted = 1,
    /// 2: there is no reservation any more, or one of another kind.
    ReservationReleased = 2,
    /// 3: reservation and registrants were cleared.
    ReservationPreempted = 3,
}

/// The reservation notification log page. Base §5.16.1.25.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReservationNotification {
    /// Bytes 0-7: notifications so far, this one included; 0 when there is none.
    pub count: u64,
    /// Byte 8; absent when there is none.
    pub kind: Option<NotificationKind>,
    /// Byte 9: how many more there are, 255 for that many or more.
    pub more: u8,
    /// NSID, bytes 12-15.
    pub namespace_id: u32,
}

impl ReservationNotification {
    /// The typed form.
    pub const fn parse(bytes: &[u8; NOTIFICATION_LENGTH]) -> Self {
        Self {
            count: u64_at(bytes, 0),
            kind: match bytes[8] {
                1 => Some(NotificationKind::RegistrationPreempted),
                2 => Some(NotificationKind::ReservationReleased),
                3 => Some(NotificationKind::ReservationPreempted),
                _ => None,
            },
            more: bytes[9],
            namespace_id: u32_at(bytes, 12),
        }
    }

    /// The bytes of it.
    pub fn encode(&self) -> [u8; NOTIFICATION_LENGTH] {
        let mut bytes = [0; NOTIFICATION_LENGTH];
        put_u64(&mut bytes, 0, self.count);
        bytes[8] = self.kind.map_or(0, |kind| kind as u8);
        bytes[9] = self.more;
        put_u32(&mut bytes, 12, self.namespace_id);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_as_it_lies_on_the_wire() {
        let registered = RegisteredController {
            controller_id: 0x0102,
            is_holder: true,
            key: 0xabcd,
            host: HostId([7; 16]),
        };
        let status = ReservationStatus {
            generation: 3,
            kind: Some(ReservationKind::WriteExclusiveAllRegistrants),
            persists: true,
            count: 2,
            registered: vec![registered],
        };
        let bytes = status.encode();
        assert_eq!(bytes.len(), 128);
        assert_eq!(bytes[..10], [3, 0, 0, 0, 5, 2, 0, 0, 0, 1]);
        assert_eq!(bytes[64..67], [2, 1, 1]);
        assert_eq!(bytes[72..74], [0xcd, 0xab]);
        assert_eq!(bytes[80..96], [7; 16]);
        assert_eq!(ReservationStatus::parse(&bytes), Some(status));
        assert_eq!(ReservationStatus::parse(&bytes[..63]), None);
        assert_eq!(ReservationStatus::parse(&bytes[..127]).expect("a header").registered, []);
        assert!(ReservationStatus::parse(&[0xff; 200]).is_some(), "a stranger's bytes do no harm");
    }

    #[test]
    fn the_notification_as_it_lies_on_the_wire() {
        let notification = ReservationNotification {
            count: 5,
            kind: Some(NotificationKind::ReservationReleased),
            more: 1,
            namespace_id: 9,
        };
        let bytes = notification.encode();
        assert_eq!(bytes[..16], [5, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 9, 0, 0, 0]);
        assert_eq!(ReservationNotification::parse(&bytes), notification);
        assert_eq!(ReservationNotification::parse(&[0; 64]), ReservationNotification::default());
    }

    #[test]
    fn keys_and_kinds() {
        let keys = RegisterKeys { current: 1, new: 2 };
        assert_eq!(RegisterKeys::parse(&keys.encode()), keys);
        let keys = AcquireKeys { current: 3, preempt: 4 };
        assert_eq!(keys.encode()[..9], [3, 0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(AcquireKeys::parse(&keys.encode()), keys);
        for kind in ReservationKind::ALL {
            assert_eq!(ReservationKind::parse(kind as u8), Some(kind));
        }
        assert_eq!((ReservationKind::parse(0), ReservationKind::parse(7)), (None, None));
    }
}

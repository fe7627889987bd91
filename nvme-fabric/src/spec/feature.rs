//! Features: what Set Features and Get Features are about.

/// FID 01h: arbitration burst. Base §5.27.1.
pub const ARBITRATION: u8 = 0x01;
/// FID 02h: power management.
pub const POWER_MANAGEMENT: u8 = 0x02;
/// FID 04h: temperature threshold.
pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
/// FID 05h: error recovery (time limited error recovery, deallocated block error).
pub const ERROR_RECOVERY: u8 = 0x05;
/// FID 06h: volatile write cache; bit 0 enables it.
pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
/// FID 07h: number of queues.
pub const NUMBER_OF_QUEUES: u8 = 0x07;
/// FID 08h: interrupt coalescing; of PCIe only.
pub const INTERRUPT_COALESCING: u8 = 0x08;
/// FID 09h: interrupt vector configuration; of PCIe only.
pub const INTERRUPT_VECTOR: u8 = 0x09;
/// FID 0Ah: write atomicity normal; bit 0 disables atomicity beyond power fail's.
pub const WRITE_ATOMICITY: u8 = 0x0a;
/// FID 0Bh: asynchronous event configuration.
pub const ASYNCHRONOUS_EVENTS: u8 = 0x0b;
/// FID 0Fh: keep alive timer, milliseconds.
pub const KEEP_ALIVE_TIMER: u8 = 0x0f;
/// FID 16h: host behaviour support; 512 bytes of data.
pub const HOST_BEHAVIOUR: u8 = 0x16;
/// FID 81h: host identifier; over fabrics Connect sets it.
pub const HOST_IDENTIFIER: u8 = 0x81;
/// FID 82h: reservation notification mask, of a namespace; bits as in
/// [`crate::spec::reservation::notification_mask`]. Base §5.27.1.28.
pub const RESERVATION_NOTIFICATION_MASK: u8 = 0x82;
/// FID 83h: reservation persistence, of a namespace; bit 0 is PTPL. Base §5.27.1.29.
pub const RESERVATION_PERSISTENCE: u8 = 0x83;
/// FID 84h: namespace write protection.
pub const NAMESPACE_WRITE_PROTECT: u8 = 0x84;

/// Bytes of the host behaviour support data. Base §5.27.1.18.
pub const HOST_BEHAVIOUR_LENGTH: u32 = 512;

/// Bits of the asynchronous event configuration (dword 11). Base §5.27.1.8.
pub mod event {
    /// Bits 7:0: SMART critical warnings.
    pub const CRITICAL_WARNINGS: u32 = 0xff;
    /// Bit 8: the list of namespaces or an attribute of one changed.
    pub const NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// Bit 9: firmware activation starts.
    pub const FIRMWARE_ACTIVATION: u32 = 1 << 9;
    /// Bit 11: asymmetric access changed.
    pub const ASYMMETRIC_ACCESS: u32 = 1 << 11;
    /// Bit 31: the discovery log changed.
    pub const DISCOVERY_LOG: u32 = 1 << 31;
}

/// Dword 11 of [`TEMPERATURE_THRESHOLD`]: whose threshold, and which. Base §5.27.1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemperatureThreshold {
    /// TMPTH, bits 15:0; what a Get asks for is not in it.
    pub kelvins: u16,
    /// TMPSEL, bits 19:16.
    pub sensor: u8,
    /// THSEL, bits 21:20.
    pub kind: u8,
}

impl TemperatureThreshold {
    /// TMPSEL 0: the composite temperature.
    pub const COMPOSITE: u8 = 0;
    /// THSEL 00b: above it is too hot.
    pub const OVER: u8 = 0;
    /// THSEL 01b: below it is too cold.
    pub const UNDER: u8 = 1;

    /// The typed form.
    pub const fn parse(dword_11: u32) -> Self {
        Self {
            kelvins: dword_11 as u16,
            sensor: (dword_11 >> 16 & 0xf) as u8,
            kind: (dword_11 >> 20 & 0b11) as u8,
        }
    }
}

/// Dword 11 of the request and dword 0 of the answer of [`NUMBER_OF_QUEUES`]. On the wire both
/// counts are 0's based; here they are counts. Base §5.27.1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberOfQueues {
    /// I/O submission queues, bits 15:0; 1 to 65536.
    pub submission: u32,
    /// I/O completion queues, bits 31:16; 1 to 65536.
    pub completion: u32,
}

impl NumberOfQueues {
    /// The typed form.
    pub const fn parse(value: u32) -> Self {
        Self { submission: (value & 0xffff) + 1, completion: (value >> 16) + 1 }
    }

    /// The dword of it.
    pub const fn encode(self) -> u32 {
        (self.submission.wrapping_sub(1) & 0xffff)
            | (self.completion.wrapping_sub(1) & 0xffff) << 16
    }
}

/// Dword 0 of a completed Asynchronous Event Request. Base §5.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Bits 2:0: 0 error, 1 SMART, 2 notice, 6 I/O command set, 7 vendor.
    pub kind: u8,
    /// Bits 15:8: which of that type. For notices 00h namespace attribute, 03h asymmetric access,
    /// F0h discovery log.
    pub information: u8,
    /// Bits 23:16: the log page that tells more, and re-arms when read.
    pub page: u8,
}

impl Event {
    /// Notice: namespace attribute changed, told by log page 04h. Base §5.2.1.
    pub const NAMESPACE_CHANGED: Self = Self { kind: 2, information: 0x00, page: 0x04 };
    /// Notice: asymmetric namespace access changed, told by log page 0Ch. Base §5.2.1.
    pub const ACCESS_CHANGED: Self = Self { kind: 2, information: 0x03, page: 0x0c };
    /// I/O command set event: a reservation notification log page is there, page 80h. It is not
    /// among the events of the event configuration; [`RESERVATION_NOTIFICATION_MASK`] masks it.
    /// Base §5.2.1.
    pub const RESERVATION_NOTIFICATION: Self = Self { kind: 6, information: 0x00, page: 0x80 };
    /// Notice: discovery log changed, told by log page 70h. Base §5.2.1.
    pub const DISCOVERY_CHANGED: Self = Self { kind: 2, information: 0xf0, page: 0x70 };

    /// The typed form.
    pub const fn parse(dword_0: u32) -> Self {
        Self {
            kind: dword_0 as u8 & 0b111,
            information: (dword_0 >> 8) as u8,
            page: (dword_0 >> 16) as u8,
        }
    }

    /// The dword of it.
    pub fn encode(self) -> u32 {
        u32::from(self.kind & 0b111) | u32::from(self.information) << 8 | u32::from(self.page) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_zero_based_on_the_wire() {
        let queues = NumberOfQueues { submission: 4, completion: 8 };
        assert_eq!(queues.encode(), 0x0007_0003);
        assert_eq!(NumberOfQueues::parse(0x0007_0003), queues);
        let most = NumberOfQueues::parse(0xffff_ffff);
        assert_eq!((most.submission, most.completion), (65536, 65536));
        assert_eq!(most.encode(), 0xffff_ffff);
    }

    #[test]
    fn events() {
        assert_eq!(Event::DISCOVERY_CHANGED.encode(), 0x0070_f002);
        assert_eq!(Event::parse(0x0004_0002), Event::NAMESPACE_CHANGED);
        assert_eq!(Event::parse(0x000c_0302), Event::ACCESS_CHANGED);
    }
}

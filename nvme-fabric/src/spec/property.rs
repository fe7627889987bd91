//! The controller's registers, read and written by Property Get and Set: capabilities, version,
//! configuration, status.

/// CAP, 8 bytes. Base §3.1.3.
pub const OFFSET_CAPABILITIES: u32 = 0x00;
/// VS, 4 bytes. Base §3.1.3.
pub const OFFSET_VERSION: u32 = 0x08;
/// CC, 4 bytes. Base §3.1.3.
pub const OFFSET_CONFIGURATION: u32 = 0x14;
/// CSTS, 4 bytes. Base §3.1.3.
pub const OFFSET_STATUS: u32 = 0x1c;
/// NSSR, 4 bytes. Base §3.1.3.
pub const OFFSET_SUBSYSTEM_RESET: u32 = 0x20;

/// ATTRIB value for a property of 4 bytes. Base §6.5.
pub const SIZE_4: u8 = 0;
/// ATTRIB value for a property of 8 bytes. Base §6.5.
pub const SIZE_8: u8 = 1;

/// Version 1.4.0, as VS and Identify's VER hold it. Base §3.1.3.2.
pub const VERSION_1_4: u32 = 0x0001_0400;
/// Version 2.0.0.
pub const VERSION_2_0: u32 = 0x0002_0000;

/// CAP. Base §3.1.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// MQES, bits 15:0: the most entries of a queue, 0's based.
    pub queue_entries_max: u16,
    /// CQR, bit 16: queues are contiguous; 1 over fabrics.
    pub contiguous_queues: bool,
    /// TO, bits 31:24: how long enabling may take, in 500 ms.
    pub timeout: u8,
    /// CSS, bits 44:37: bit 0 NVM command set, bit 6 several command sets, bit 7 none.
    pub command_sets: u8,
    /// MPSMIN, bits 51:48: the smallest page is 2^(12 + this) bytes, the unit of MDTS.
    pub page_size_min: u8,
    /// MPSMAX, bits 55:52.
    pub page_size_max: u8,
}

impl Capabilities {
    /// The typed form.
    pub const fn parse(value: u64) -> Self {
        Self {
            queue_entries_max: value as u16,
            contiguous_queues: value & 1 << 16 != 0,
            timeout: (value >> 24) as u8,
            command_sets: (value >> 37) as u8,
            page_size_min: (value >> 48) as u8 & 0xf,
            page_size_max: (value >> 52) as u8 & 0xf,
        }
    }

    /// The register's value.
    pub fn encode(self) -> u64 {
        u64::from(self.queue_entries_max)
            | u64::from(self.contiguous_queues) << 16
            | u64::from(self.timeout) << 24
            | u64::from(self.command_sets) << 37
            | u64::from(self.page_size_min & 0xf) << 48
            | u64::from(self.page_size_max & 0xf) << 52
    }
}

/// CC. Base §3.1.3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Configuration {
    /// EN, bit 0.
    pub enable: bool,
    /// CSS, bits 6:4: 000b the NVM command set, 110b all that are supported, 111b admin only.
    pub command_set: u8,
    /// MPS, bits 10:7: the page is 2^(12 + this) bytes.
    pub page_size: u8,
    /// AMS, bits 13:11: arbitration.
    pub arbitration: u8,
    /// SHN, bits 15:14: 01b normal shutdown, 10b abrupt.
    pub shutdown: u8,
    /// IOSQES, bits 19:16: a submission entry has 2^this bytes.
    pub submission_entry_size: u8,
    /// IOCQES, bits 23:20: a completion entry has 2^this bytes.
    pub completion_entry_size: u8,
}

impl Configuration {
    /// Enabled for the NVM command set, with entries of 64 and 16 bytes: 0x00460001.
    pub const ENABLED: Self = Self {
        enable: true,
        command_set: 0,
        page_size: 0,
        arbitration: 0,
        shutdown: 0,
        submission_entry_size: 6,
        completion_entry_size: 4,
    };

    /// The typed form.
    pub const fn parse(value: u32) -> Self {
        Self {
            enable: value & 1 != 0,
            command_set: (value >> 4) as u8 & 0b111,
            page_size: (value >> 7) as u8 & 0xf,
            arbitration: (value >> 11) as u8 & 0b111,
            shutdown: (value >> 14) as u8 & 0b11,
            submission_entry_size: (value >> 16) as u8 & 0xf,
            completion_entry_size: (value >> 20) as u8 & 0xf,
        }
    }

    /// The register's value.
    pub fn encode(self) -> u32 {
        u32::from(self.enable)
            | u32::from(self.command_set & 0b111) << 4
            | u32::from(self.page_size & 0xf) << 7
            | u32::from(self.arbitration & 0b111) << 11
            | u32::from(self.shutdown & 0b11) << 14
            | u32::from(self.submission_entry_size & 0xf) << 16
            | u32::from(self.completion_entry_size & 0xf) << 20
    }
}

/// CSTS. Base §3.1.3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ControllerStatus {
    /// RDY, bit 0: commands are taken.
    pub ready: bool,
    /// CFS, bit 1: a fatal error; only a reset helps.
    pub fatal: bool,
    /// SHST, bits 3:2.
    pub shutdown: ShutdownStatus,
}

/// SHST: how far a shutdown is. Base §3.1.3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ShutdownStatus {
    /// 00b: none was asked for.
    #[default]
    None,
    /// 01b: under way.
    UnderWay,
    /// 10b: complete.
    Complete,
    /// 11b: reserved.
    Reserved,
}

impl ControllerStatus {
    /// The typed form.
    pub const fn parse(value: u32) -> Self {
        Self {
            ready: value & 1 != 0,
            fatal: value & 2 != 0,
            shutdown: match value >> 2 & 0b11 {
                0b00 => ShutdownStatus::None,
                0b01 => ShutdownStatus::UnderWay,
                0b10 => ShutdownStatus::Complete,
                _ => ShutdownStatus::Reserved,
            },
        }
    }

    /// The register's value.
    pub fn encode(self) -> u32 {
        let shutdown = match self.shutdown {
            ShutdownStatus::None => 0b00,
            ShutdownStatus::UnderWay => 0b01,
            ShutdownStatus::Complete => 0b10,
            ShutdownStatus::Reserved => 0b11,
        };
        u32::from(self.ready) | u32::from(self.fatal) << 1 | shutdown << 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_as_a_register() {
        let capabilities = Capabilities {
            queue_entries_max: 127,
            contiguous_queues: true,
            timeout: 15,
            command_sets: 1,
            page_size_min: 0,
            page_size_max: 0,
        };
        assert_eq!(capabilities.encode(), 0x0000_0020_0f01_007f);
        assert_eq!(Capabilities::parse(0x0000_0020_0f01_007f), capabilities);
        assert_eq!(Capabilities::parse(0x0073_0000_0000_0000).page_size_min, 3);
        assert_eq!(Capabilities::parse(0x0073_0000_0000_0000).page_size_max, 7);
    }

    #[test]
    fn configuration_as_a_register() {
        assert_eq!(Configuration::ENABLED.encode(), 0x0046_0001);
        assert_eq!(Configuration::parse(0x0046_0001), Configuration::ENABLED);
        assert_eq!(Configuration::parse(0x0046_4001).shutdown, 1);
        assert_eq!(Configuration::parse(0x0000_0060).command_set, 6);
    }

    #[test]
    fn status_as_a_register() {
        let status =
            ControllerStatus { ready: true, fatal: false, shutdown: ShutdownStatus::Complete };
        assert_eq!(status.encode(), 0b1001);
        for value in 0..16 {
            assert_eq!(ControllerStatus::parse(value).encode(), value);
        }
    }
}

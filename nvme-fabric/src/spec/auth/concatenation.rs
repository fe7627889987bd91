//! SC_C: whether authentication generates a key for a secure channel.

/// SC_C of AUTH_Negotiate. Base 2.1 §8.3.4.5.1; the codes as in Linux `include/linux/nvme.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concatenation {
    /// 00h, NOSC: authentication only.
    #[default]
    None,
    /// 02h, NEWTLSPSK: a pre-shared key for TLS, with which the host then connects again.
    New,
    /// 03h, REPLACETLSPSK: another one, in place of that with which the stream is encrypted.
    Replace,
}

impl Concatenation {
    /// The one with this code; 01h is reserved.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            2 => Some(Self::New),
            3 => Some(Self::Replace),
            _ => None,
        }
    }

    /// Its code.
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::New => 2,
            Self::Replace => 3,
        }
    }
}

//! Where a volume's encryption key comes from: a file, or a descriptor that whoever started this
//! process has opened.
//!
//! ```text
//!   file:PATH ─┐  64 bytes, or 128 hexadecimal digits and perhaps a newline
//!   fd:N ──────┴──────────────────────────────────────────────────────────▶ VolumeKey
//! ```
//! A key is never a word of the command line, which every user of the machine can read. Memory that
//! held any of it is overwritten, and no error shows any of it.
//!
//! Absent: passwords (what people can remember is too little for a key), key servers; those write
//! to a pipe that is named here.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use block_io::DeviceError;
use zeroize::Zeroizing;

use crate::cache::cipher::{KEY_LENGTH, VolumeKey};

/// Hexadecimal digits of a key.
const DIGITS: usize = 2 * KEY_LENGTH;

/// The longest that is read: digits, a newline, and one byte that would be too many.
const READ_MAX: usize = DIGITS + 2;

/// What is asked for, for errors.
const EXPECTED: &str = "a key is 64 bytes or 128 hexadecimal digits";

/// Where a key is to be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// A descriptor that is open in this process: a pipe, a memfd, a file.
    Descriptor(RawFd),
}

impl FromStr for KeySource {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(Self::File(PathBuf::from(path)));
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            if let Some(descriptor) = number.parse().ok().filter(|_| digits) {
                return Ok(Self::Descriptor(descriptor));
            }
        }
        // What was given may be the key itself, put there by mistake: it is not repeated.
        Err(DeviceError::new(
            "encryption key: its address must be file:PATH or fd:N, such as file:/etc/forebay/key",
        ))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

impl KeySource {
    /// Reads the key, to the end of what it is read from. Can be done once for a pipe.
    ///
    /// # Errors
    /// When it can't be opened or read, others than its owner may read it, it is a terminal, or
    /// what it holds is no key. No error says what it holds.
    pub fn read(&self) -> Result<VolumeKey, DeviceError> {
        let mut file = self.open().map_err(|error| self.failed("opening it", error))?;
        self.check_kind(&file)?;
        let mut bytes = Zeroizing::new([0; READ_MAX]);
        let mut length = 0;
        while length < READ_MAX {
            match file.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("reading it", error)),
            }
        }
        let key = parse(&bytes[..length]).map_err(|what| self.refused(&what))?;
        VolumeKey::new(&key).map_err(|error| DeviceError::with_source(self.to_string(), error))
    }

    fn open(&self) -> io::Result<File> {
        match self {
            Self::File(path) => {
                // A terminal is refused later, but would become this process's own by being opened.
                let flags = rustix::fs::OFlags::NOCTTY.bits() as i32;
                OpenOptions::new().read(true).custom_flags(flags).open(path)
            }
            Self::Descriptor(number) => {
                // SAFETY: not -1, as parsing takes digits only. Whether it is open is found out by
                // the one call that is made with it: the kernel duplicates it, or says that it is
                // not. Nothing is closed or taken from whoever owns it.
                let borrowed = unsafe { BorrowedFd::borrow_raw(*number) };
                borrowed.try_clone_to_owned().map(File::from)
            }
        }
    }

    /// Refuses what is no place for a key. Asked of what was opened, not of the path, which may
    /// name something else by now.
    fn check_kind(&self, file: &File) -> Result<(), DeviceError> {
        if file.is_terminal() {
            return Err(self.refused("a terminal; name a file or a pipe"));
        }
        let metadata = file.metadata().map_err(|error| self.failed("looking at it", error))?;
        let kind = metadata.file_type();
        if !(kind.is_file() || kind.is_fifo() || kind.is_socket()) {
            return Err(self.refused("neither a file nor a pipe"));
        }
        // A file without a name (memfd, or unlinked) is reached by nobody through its mode.
        let mode = metadata.mode() & 0o777;
        if kind.is_file() && metadata.nlink() > 0 && mode & 0o066 != 0 {
            return Err(self.refused(&format!(
                "its mode {mode:03o} lets others than its owner at it; use chmod 600"
            )));
        }
        Ok(())
    }

    fn refused(&self, what: &str) -> DeviceError {
        DeviceError::new(format!("encryption key {self}: {what}"))
    }

    fn failed(&self, attempt: &str, error: io::Error) -> DeviceError {
        DeviceError::with_source(format!("encryption key {self}: {attempt}"), error)
    }
}

/// The key that was read, or what is wrong with it, without any of it.
fn parse(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_LENGTH]>, String> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    let digits = match bytes.len() {
        KEY_LENGTH if bytes.iter().all(u8::is_ascii_hexdigit) => {
            return Err(format!("64 hexadecimal digits are half a key; {EXPECTED}"));
        }
        KEY_LENGTH => {
            key.copy_from_slice(bytes);
            return Ok(key);
        }
        DIGITS => bytes,
        length if length == DIGITS + 1 && bytes.ends_with(b"\n") => &bytes[..DIGITS],
        READ_MAX => return Err(format!("{READ_MAX} bytes or more; {EXPECTED}")),
        length => return Err(format!("{length} bytes; {EXPECTED}")),
    };
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = (digit(digits, 2 * at)? << 4) | digit(digits, 2 * at + 1)?;
    }
    Ok(key)
}

/// The value of one digit.
fn digit(digits: &[u8], at: usize) -> Result<u8, String> {
    // At most 15, so it fits.
    let value = char::from(digits[at]).to_digit(16).map(|value| value as u8);
    value.ok_or_else(|| format!("byte {} of {DIGITS} is no hexadecimal digit; {EXPECTED}", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    /// What must not be seen anywhere.
    const SECRET: &str = "5ec2e7";

    fn bytes() -> [u8; KEY_LENGTH] {
        std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0xA5)
    }

    fn hexadecimal() -> String {
        bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check_of(key: &VolumeKey) -> [u8; 16] {
        crate::cache::cipher::LineCipher::new(key).key_check()
    }

    fn expected_check() -> [u8; 16] {
        check_of(&VolumeKey::new(&bytes()).unwrap())
    }

    /// A key file with this content and mode; its address is the file's.
    fn read_file(content: &[u8], mode: u32) -> Result<VolumeKey, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        let source = format!("file:{}", file.path().display()).parse::<KeySource>().unwrap();
        source.read().map_err(|error| format!("{error} {error:?}"))
    }

    /// A pipe that this was written into, at its end.
    fn read_pipe(content: &[u8]) -> Result<VolumeKey, String> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(content).unwrap();
        drop(writer);
        let source = KeySource::Descriptor(reader.as_raw_fd());
        source.read().map_err(|error| format!("{error} {error:?}"))
    }

    #[test]
    fn addresses_are_read_and_shown() {
        for text in ["file:/etc/forebay/key", "file:key:1", "fd:0", "fd:17"] {
            assert_eq!(text.parse::<KeySource>().unwrap().to_string(), text);
        }
        let wrong = ["", "file:", "fd:", "fd:-1", "fd:+1", "fd:9999999999", "env:KEY", SECRET];
        for text in wrong {
            let error = text.parse::<KeySource>().unwrap_err().to_string();
            assert!(error.contains("file:PATH or fd:N"), "{error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn bytes_and_digits_are_the_same_key() {
        let upper = hexadecimal().to_uppercase();
        let with_newline = hexadecimal() + "\n";
        for content in [&bytes()[..], hexadecimal().as_bytes(), upper.as_bytes()] {
            assert_eq!(check_of(&read_file(content, 0o600).unwrap()), expected_check());
        }
        let key = read_file(with_newline.as_bytes(), 0o400).unwrap();
        assert_eq!(check_of(&key), expected_check());
        assert_eq!(check_of(&read_pipe(with_newline.as_bytes()).unwrap()), expected_check());
    }

    #[test]
    fn a_key_may_come_in_parts() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        // One read of such a socket gives one packet, however much is there.
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::empty());
        let (writer, reader) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let mut writer = File::from(writer);
        for part in hexadecimal().as_bytes().chunks(64) {
            writer.write_all(part).unwrap();
        }
        drop(writer);
        let key = KeySource::Descriptor(reader.as_raw_fd()).read().unwrap();
        assert_eq!(check_of(&key), expected_check());
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let half = SECRET.repeat(11)[..64].to_owned();
        let digits = SECRET.repeat(22)[..128].to_owned();
        let no_digit = digits[..100].to_owned() + "x" + &digits[101..];
        let cases = [
            (String::new(), "0 bytes;"),
            (SECRET.to_owned(), "6 bytes;"),
            (half.clone(), "half a key"),
            (half + "\n", "65 bytes;"),
            (digits[..127].to_owned(), "127 bytes;"),
            (digits.clone() + "\r", "129 bytes;"),
            (digits.clone() + "\n\n", "130 bytes or more"),
            (SECRET.repeat(1000), "130 bytes or more"),
            (no_digit, "byte 101 of 128 is no hexadecimal digit"),
            (digits[..64].repeat(2), "two halves are equal"),
        ];
        for (content, why) in cases {
            for result in [read_file(content.as_bytes(), 0o600), read_pipe(content.as_bytes())] {
                let error = result.unwrap_err();
                assert!(error.contains(why), "{why}: {error}");
                assert!(!error.contains(SECRET), "{error}");
            }
        }
    }

    #[test]
    fn a_file_that_others_may_read_or_change_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            let error = read_file(&bytes(), mode).unwrap_err();
            assert!(error.contains(&format!("mode {mode:03o}")), "{error}");
        }
    }

    #[test]
    fn terminals_folders_devices_and_what_is_not_there_are_refused() {
        for (address, why) in [
            ("file:/dev/ptmx", "a terminal"),
            ("file:/", "neither a file nor a pipe"),
            ("file:/dev/zero", "neither a file nor a pipe"),
            ("file:/nowhere/at/all", "opening it"),
            ("fd:1000000", "opening it"),
        ] {
            let error = address.parse::<KeySource>().unwrap().read().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(address), "{error}");
        }
    }
}

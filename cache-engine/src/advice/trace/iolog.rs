//! fio's logs of requests (`write_iolog`), versions 2 and 3.
//!
//! ```text
//!   fio version 2 iolog          fio version 3 iolog
//!   /dev/sda add                 0 /dev/sda add
//!   /dev/sda open                0 /dev/sda open
//!   /dev/sda read 4096 8192      17 /dev/sda read 4096 8192
//! ```
//! Version 3 begins lines with a time in milliseconds. Each file is a device of its own: they are
//! laid out one after another. Source: fio's HOWTO, "Trace file format".

use super::text::LineParser;
use super::{Access, number, request, shown};

/// Files of one log.
const FILES_MAX: usize = 256;
/// Bytes between the starts of two files, and so of the largest file.
const FILE_SPAN: u64 = 1 << 50;

/// A log, and the files named so far.
#[derive(Default)]
pub(super) struct Iolog {
    version: Option<u8>,
    files: Vec<String>,
}

impl LineParser for Iolog {
    fn line(&mut self, line: &str) -> Result<Option<Access>, String> {
        let Some(version) = self.version else {
            self.version = Some(version_of(line)?);
            return Ok(None);
        };
        let mut fields = line.split_ascii_whitespace();
        if version == 3 {
            number("time", fields.next().unwrap_or_default())?;
        }
        let (Some(file), Some(action)) = (fields.next(), fields.next()) else {
            return Err(format!("`{}`: must be a file and what is done with it", shown(line)));
        };
        let is_write = match action {
            "read" => false,
            "write" => true,
            "add" | "open" | "close" | "wait" | "sync" | "datasync" | "trim" => return Ok(None),
            other => {
                return Err(format!(
                    "action `{}`: must be add, open, close, read, write, trim, sync, datasync or \
                     wait",
                    shown(other)
                ));
            }
        };
        let (Some(offset), Some(length), None) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("`{}`: must end in `{action} OFFSET LENGTH`", shown(line)));
        };
        let (offset, length) = (number("offset", offset)?, number("length", length)?);
        if offset >= FILE_SPAN {
            return Err(format!("offset {offset}: must be below {FILE_SPAN}"));
        }
        request(self.start_of(file)? + offset, 1, length, is_write)
    }
}

impl Iolog {
    /// Where a file begins in the address space of the trace.
    fn start_of(&mut self, file: &str) -> Result<u64, String> {
        let known = self.files.iter().position(|known| known == file);
        let index = match known {
            Some(index) => index,
            None if self.files.len() == FILES_MAX => {
                return Err(format!(
                    "file `{}`: there must be no more than {FILES_MAX} files",
                    shown(file)
                ));
            }
            None => {
                self.files.push(file.to_owned());
                self.files.len() - 1
            }
        };
        Ok(index as u64 * FILE_SPAN)
    }
}

fn version_of(line: &str) -> Result<u8, String> {
    match line {
        "fio version 2 iolog" => Ok(2),
        "fio version 3 iolog" => Ok(3),
        other => Err(format!(
            "`{}`: must be `fio version 2 iolog` or `fio version 3 iolog`",
            shown(other)
        )),
    }
}

//! What this host remembers of each origin: which cache it was attached to last, and how often.
//!
//! ```text
//!   state directory/
//!     attachment-UUID    one file for each origin, the UUID made from its identity
//!       forebay attachment 1
//!       origin NVMe namespace: nguid 0123456789abcdef0123456789abcdef
//!       cache 00112233445566778899aabbccddeeff         or: cache none
//!       epoch 1763737200
//!       checksum 1a2b3c4d
//! ```
//! It lies outside the cache device, so that a copy of that device, or an old one, gives itself
//! away. A record is never deleted, and its epoch never goes down: a cache that is given up leaves
//! `cache none`. Epochs start from the time, so that they do not come again when a record is lost.
//! A record is replaced as a whole and is durable before anything is done that relies on it.
//!
//! Absent: what follows from it ([`crate::cache::metadata::identity`]), and keeping two processes
//! from one origin (its device is opened exclusively).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use block_io::DeviceError;
use uuid::Uuid;

use crate::cache::metadata::identity::Attachment;
use crate::cache::metadata::{FormatId, IdentityKind, OriginIdentity};

/// The variable that says where the state directory is.
pub const STATE_DIRECTORY_VARIABLE: &str = "FOREBAY_STATE_DIR";

/// A record is smaller than this; a larger file is none.
const LENGTH_MAX: u64 = 4096;

const FIRST_LINE: &str = "forebay attachment 1";

/// The folder in which a host keeps its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The one at `path`; made when it is first written to.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The one of this process: `$FOREBAY_STATE_DIR`, or else `/var/lib/forebay` for root and
    /// `$XDG_STATE_HOME/forebay` or `~/.local/state/forebay` for others.
    ///
    /// # Errors
    /// When nothing says where that is.
    pub fn of_this_process() -> Result<Self, DeviceError> {
        let is_root = rustix::process::geteuid().is_root();
        Self::chosen(is_root, |name| std::env::var_os(name).map(PathBuf::from))
    }

    fn chosen(
        is_root: bool,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Self, DeviceError> {
        // XDG Base Directory 0.8: a relative path in a variable is as good as none.
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        if let Some(path) = variable(STATE_DIRECTORY_VARIABLE) {
            return match path.is_absolute() {
                true => Ok(Self { path }),
                false => Err(DeviceError::new(format!(
                    "{STATE_DIRECTORY_VARIABLE} '{}': must be an absolute path",
                    path.display()
                ))),
            };
        }
        if is_root {
            return Ok(Self::at("/var/lib/forebay"));
        }
        let home = || absolute("HOME").map(|home| home.join(".local/state"));
        match absolute("XDG_STATE_HOME").or_else(home) {
            Some(folder) => Ok(Self { path: folder.join("forebay") }),
            None => Err(DeviceError::new(format!(
                "state directory: neither {STATE_DIRECTORY_VARIABLE} nor HOME is set; set one"
            ))),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last attachment of an origin; none where there is no record.
    ///
    /// # Errors
    /// When there is a record that cannot be read, or is not as it was written; the file is named.
    pub fn read(&self, origin: &OriginIdentity) -> Result<Option<Attachment>, DeviceError> {
        let path = self.file_of(origin)?;
        let text = match read_file(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "reading the attachment record", error)),
        };
        decode(origin, &text).map(Some).map_err(|what| {
            DeviceError::new(format!(
                "{}: {what}; remove the file if that is all right: the next start is cold then",
                path.display()
            ))
        })
    }

    /// Records a new attachment of an origin to the cache `format_id` and returns its epoch, which
    /// is higher than any before. It is durable then.
    ///
    /// # Errors
    /// When the earlier record is broken or the new one cannot be written; the file is named.
    pub fn advance(
        &self,
        origin: &OriginIdentity,
        format_id: FormatId,
    ) -> Result<u64, DeviceError> {
        self.replace(origin, Some(format_id))
    }

    /// Records that the origin goes on without a cache: none that knows of an earlier attachment is
    /// served warm again. It is durable then.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn disown(&self, origin: &OriginIdentity) -> Result<(), DeviceError> {
        self.replace(origin, None).map(|_| ())
    }

    fn replace(
        &self,
        origin: &OriginIdentity,
        format_id: Option<FormatId>,
    ) -> Result<u64, DeviceError> {
        let before = self.read(origin)?.map_or(0, |attachment| attachment.epoch);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let path = self.file_of(origin)?;
        let epoch = before.checked_add(1).ok_or_else(|| {
            DeviceError::new(format!("{}: epoch {before}: must be lower", path.display()))
        })?;
        let attachment = Attachment { format_id, epoch: epoch.max(now) };
        make_folder(&self.path)
            .map_err(|error| failed(&self.path, "making the state directory", error))?;
        write_file(&self.path, &path, &encode(origin, attachment))
            .map_err(|error| failed(&path, "writing the attachment record", error))?;
        Ok(attachment.epoch)
    }

    fn file_of(&self, origin: &OriginIdentity) -> Result<PathBuf, DeviceError> {
        if origin.kind() == IdentityKind::Unknown {
            return Err(DeviceError::new(
                "attachment record: the origin has nothing that tells it from others",
            ));
        }
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, shown(origin).as_bytes());
        Ok(self.path.join(format!("attachment-{name}")))
    }
}

/// An origin as a record names it.
fn shown(origin: &OriginIdentity) -> String {
    format!("{}: {}", origin.kind(), origin.text())
}

fn encode(origin: &OriginIdentity, attachment: Attachment) -> String {
    let cache = attachment.format_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let body = format!(
        "{FIRST_LINE}\norigin {}\ncache {cache}\nepoch {}\n",
        shown(origin),
        attachment.epoch
    );
    format!("{body}checksum {:08x}\n", block_io::Crc32c::new().update(body.as_bytes()).value())
}

/// Reads a record of `origin`, or says what is wrong with it.
fn decode(origin: &OriginIdentity, text: &str) -> Result<Attachment, String> {
    let first = text.lines().next().unwrap_or_default();
    if first != FIRST_LINE {
        return Err(format!("begins with '{}'; must be '{FIRST_LINE}'", first.escape_debug()));
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.ok_or_else(|| format!("has no line '{name}'"))
    };
    let found = value("origin")?;
    if found != shown(origin) {
        let found = found.escape_debug();
        return Err(format!("is the record of '{found}'; must be that of '{}'", shown(origin)));
    }
    let format_id = match value("cache")? {
        "none" => None,
        id => Some(parse_format_id(id).ok_or_else(|| {
            format!("cache '{}': must be 32 hexadecimal digits or none", id.escape_debug())
        })?),
    };
    let epoch = value("epoch")?;
    let epoch = epoch.parse().map_err(|_| format!("epoch '{}'", epoch.escape_debug()))?;
    let attachment = Attachment { format_id, epoch };
    // There is one way to write a record; this compares the checksum too.
    if text == encode(origin, attachment) {
        Ok(attachment)
    } else {
        Err("is not as it was written: its checksum or its form is wrong".into())
    }
}

fn parse_format_id(text: &str) -> Option<FormatId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|number| FormatId(number.to_be_bytes()))
}

fn read_file(path: &Path) -> io::Result<String> {
    let refused = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LENGTH_MAX {
        return Err(refused(format!("must be a regular file of at most {LENGTH_MAX} bytes")));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(refused(format!("mode {mode:03o}: others may write it; must be 600")));
    }
    let mut text = String::new();
    file.take(LENGTH_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes a folder and what it lies in, each durable in the one above.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    above.map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// Replaces the file at `path` in `folder` by one with `text`, as a whole and durably.
fn write_file(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    // What an earlier process of the same number left behind.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(
        |mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        },
    );
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        // The failure to be told is the first one.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn failed(path: &Path, doing: &str, error: io::Error) -> DeviceError {
    DeviceError::with_source(format!("{}: {doing}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn origin(text: &str) -> OriginIdentity {
        OriginIdentity::new(IdentityKind::NvmeNamespace, text).expect("short")
    }

    const THIS: FormatId = FormatId([0xab; 16]);

    fn fresh() -> (tempfile::TempDir, StateDirectory) {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDirectory::at(folder.path().join("deep/state"));
        (folder, state)
    }

    #[test]
    fn epochs_only_rise_and_each_origin_has_its_own() {
        let (_folder, state) = fresh();
        assert_eq!(state.read(&origin("a")).expect("no folder yet"), None);
        let first = state.advance(&origin("a"), THIS).expect("written");
        assert!(first > 1_700_000_000, "from the time on: {first}");
        let second = state.advance(&origin("a"), FormatId([1; 16])).expect("written");
        assert!(second > first);
        let read = state.read(&origin("a")).expect("readable");
        assert_eq!(read, Some(Attachment { format_id: Some(FormatId([1; 16])), epoch: second }));
        assert_eq!(state.read(&origin("b")).expect("none"), None);
        state.disown(&origin("a")).expect("written");
        let disowned = state.read(&origin("a")).expect("readable").expect("kept");
        assert!(disowned.format_id.is_none() && disowned.epoch > second);
        assert!(state.advance(&origin("a"), THIS).expect("written") > disowned.epoch);
    }

    #[test]
    fn a_record_is_its_owners_and_nothing_is_left_beside_it() {
        let (_folder, state) = fresh();
        state.advance(&origin("a"), THIS).expect("written");
        state.advance(&origin("a"), THIS).expect("written");
        let files: Vec<_> = fs::read_dir(state.path()).expect("readable").flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(state.path()), mode(&files[0].path())), (0o700, 0o600));
    }

    #[test]
    fn a_broken_record_is_an_error_that_names_the_file() {
        let (_folder, state) = fresh();
        state.advance(&origin("a"), THIS).expect("written");
        let path = state.file_of(&origin("a")).expect("known");
        let good = fs::read_to_string(&path).expect("readable");
        let refusal = |text: &str| {
            fs::write(&path, text).expect("written");
            let refusal = state.read(&origin("a")).expect_err(text).to_string();
            assert!(refusal.contains(path.to_str().expect("UTF-8")), "{refusal}");
            state.advance(&origin("a"), THIS).expect_err("not written over");
            refusal
        };
        for (text, words) in [
            (good.replace("attachment 1", "attachment 2"), "must be 'forebay attachment 1'"),
            (good.replace(": a\n", ": b\n"), "must be that of 'NVMe namespace: a'"),
            (good.replace("cache ab", "cache xx"), "must be 32 hexadecimal digits"),
            (good.replace("cache ab", "cache cd"), "checksum"),
            (good.replace("epoch 1", "epoch 2"), "checksum"),
            (good.replace("epoch 1", "epoch -1"), "epoch '-1"),
            (good.replace("epoch", "epic"), "has no line 'epoch'"),
            (good[..good.len() - 1].to_owned(), "form is wrong"),
            ("\0".repeat(100), "begins with"),
            (String::new(), "begins with ''"),
            ("x".repeat(5000), "at most 4096 bytes"),
        ] {
            assert_ne!(text, good);
            let refusal = refusal(&text);
            assert!(refusal.contains(words), "{words}: {refusal}");
        }
        fs::write(&path, &good).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("set");
        let refusal = state.read(&origin("a")).expect_err("open to others").to_string();
        assert!(refusal.contains("mode 622"), "{refusal}");
    }

    #[test]
    fn an_origin_that_nobody_knows_again_has_no_record() {
        let (_folder, state) = fresh();
        let unknown = OriginIdentity::unknown();
        assert!(state.read(&unknown).is_err() && state.advance(&unknown, THIS).is_err());
    }

    #[test]
    fn the_folder_is_where_the_system_keeps_state() {
        let choose = |is_root, variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, path)| PathBuf::from(path))
            };
            StateDirectory::chosen(is_root, find).map(|state| state.path.display().to_string())
        };
        let home = ("HOME", "/home/a");
        let chosen =
            |is_root, variables: &[(&str, &str)]| choose(is_root, variables).expect("it is said");
        assert_eq!(chosen(true, &[home]), "/var/lib/forebay");
        assert_eq!(chosen(false, &[home]), "/home/a/.local/state/forebay");
        assert_eq!(chosen(false, &[home, ("XDG_STATE_HOME", "/s")]), "/s/forebay");
        assert_eq!(chosen(false, &[home, ("XDG_STATE_HOME", "s")]), "/home/a/.local/state/forebay");
        assert_eq!(chosen(true, &[(STATE_DIRECTORY_VARIABLE, "/x")]), "/x");
        assert!(choose(true, &[(STATE_DIRECTORY_VARIABLE, "x")]).is_err());
        assert!(choose(false, &[]).expect_err("nowhere").to_string().contains("HOME"));
    }
}

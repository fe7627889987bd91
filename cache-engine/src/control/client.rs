//! The other end of the control socket: connects, asks, and says what to do when nobody is there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use block_io::DeviceError;

use super::model::{ANSWER_BYTES_MAX, Answer, Greeting, PROTOCOL, Request, line_of, parse_answer};

/// A connection to a running service.
#[derive(Debug)]
pub struct ControlClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl ControlClient {
    /// Connects to the service that listens at `path`.
    ///
    /// # Errors
    /// When there is none, it may not be asked, or it speaks another language; the message says
    /// what to do.
    pub fn connect(path: &Path) -> Result<Self, DeviceError> {
        let stream = UnixStream::connect(path).map_err(|error| nobody(path, error))?;
        let mut client = Self { path: path.to_owned(), stream: BufReader::new(stream) };
        let line = client.line()?;
        let Ok(greeting) = serde_json::from_slice::<Greeting>(&line) else {
            return Err(match parse_answer(&line) {
                Ok(Answer::Error { message }) => client.failure(message),
                _ => client.failure("what listens there is no forebay"),
            });
        };
        if greeting.protocol != PROTOCOL {
            return Err(client.failure(format!(
                "forebay {} listens there, which speaks version {} of the control protocol; this \
                 is forebay {}, which speaks version {PROTOCOL}: use the forebay that runs",
                greeting.forebay,
                greeting.protocol,
                env!("CARGO_PKG_VERSION")
            )));
        }
        Ok(client)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the service refuses (the message is its own), or is gone.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, DeviceError> {
        let sent = self.stream.get_mut().write_all(&line_of(request));
        sent.map_err(|error| self.gone(error))?;
        let line = self.line()?;
        match parse_answer(&line) {
            Ok(Answer::Error { message }) => Err(DeviceError::new(message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failure(format!("an answer that makes no sense: {error}"))),
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, DeviceError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(ANSWER_BYTES_MAX as u64);
        bounded.read_until(b'\n', &mut line).map_err(|error| self.gone(error))?;
        match line.pop() {
            Some(b'\n') => Ok(line),
            _ => Err(self.gone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn gone(&self, error: io::Error) -> DeviceError {
        let path = self.path.display();
        DeviceError::with_source(format!("control socket {path}: the service is gone"), error)
    }

    fn failure(&self, message: impl std::fmt::Display) -> DeviceError {
        DeviceError::new(format!("control socket {}: {message}", self.path.display()))
    }
}

/// Nobody answers at `path`: what to do about it.
fn nobody(path: &Path, error: io::Error) -> DeviceError {
    let advice = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no forebay listens there; start one with `forebay run --control SOCKET …`, and name \
             the same SOCKET by --socket or FOREBAY_SOCKET"
        }
        io::ErrorKind::PermissionDenied => "it belongs to another user; ask as that user",
        _ => "it cannot be connected to",
    };
    DeviceError::with_source(format!("control socket {}: {advice}", path.display()), error)
}

/// Where a service's control socket is when nobody says: in the user's folder for such things, or
/// in the system's for root.
pub fn default_socket(is_root: bool, runtime_folder: Option<&Path>) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from("/run/forebay/forebay.sock"));
    }
    runtime_folder.filter(|folder| folder.is_absolute()).map(|folder| folder.join("forebay.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_socket_is_the_users_or_the_systems() {
        let folder = Path::new("/run/user/1000");
        let of_user = default_socket(false, Some(folder));
        assert_eq!(of_user, Some(PathBuf::from("/run/user/1000/forebay.sock")));
        let of_root = default_socket(true, Some(folder));
        assert_eq!(of_root, Some(PathBuf::from("/run/forebay/forebay.sock")));
        assert_eq!(default_socket(false, None), None);
        assert_eq!(default_socket(false, Some(Path::new("relative"))), None);
    }

    /// Connects to somebody who says `line` first.
    fn meet(line: &[u8]) -> Result<ControlClient, DeviceError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("free");
        std::thread::scope(|scope| {
            scope.spawn(|| listener.accept().and_then(|(mut stream, _)| stream.write_all(line)));
            ControlClient::connect(&path)
        })
    }

    #[test]
    fn who_is_no_forebay_of_this_protocol_is_told_apart() {
        assert!(meet(&line_of(&Greeting::ours())).is_ok());
        let newer = Greeting { forebay: "9.9".into(), protocol: PROTOCOL + 1 };
        for (line, expected) in [
            (line_of(&newer), "forebay 9.9 listens there"),
            (line_of(&Answer::error("16 clients are here already")), "16 clients"),
            (b"220 mail\n".to_vec(), "no forebay"),
            (b"{}".to_vec(), "is gone"),
            (Vec::new(), "is gone"),
        ] {
            let error = meet(&line).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn where_nobody_listens_the_way_to_start_one_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let missing = ControlClient::connect(&path).expect_err("nobody").to_string();
        drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
        let refused = ControlClient::connect(&path).expect_err("nobody").to_string();
        for error in [missing, refused] {
            assert!(error.contains("forebay run --control SOCKET"), "{error}");
        }
    }
}

//! What a machine and whoever started it tell each other: lines of JSON behind a mark, on a serial
//! line that the kernel and others may write to as well.

use std::io::{BufRead, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What every message starts with; lines without it are somebody else's.
const MARK: &str = "@forebay-vm ";

/// To the machine.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run the case of this name in a process of its own.
    Run {
        /// Its name.
        case: String,
        /// How long it may take.
        limit: Duration,
        /// What is loaded before it starts.
        modules: Vec<Module>,
        /// Variables of the process's environment.
        environment: Vec<(String, String)>,
    },
}

/// A module of the kernel, and what it is told: `brd`, `rd_nr=1`.
pub(crate) type Module = Vec<String>;

/// From the machine.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It is up and waits for orders.
    Ready,
    /// It could not be set up.
    Unusable(String),
    /// A line that the case wrote.
    Output(String),
    /// The case has ended, and nothing of it runs any more.
    Ended {
        /// Why it failed, if it did.
        failure: Option<String>,
        /// Whether another case would find the machine as this one did.
        is_as_before: bool,
    },
}

/// Writes one message.
///
/// # Errors
/// When the line is gone.
pub(crate) fn send(line: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    let text = serde_json::to_string(message)?;
    // On a line of its own, whatever others have written last.
    line.write_all(format!("\n{MARK}{text}\n").as_bytes())?;
    line.flush()
}

/// The next message; none at the end of the line.
///
/// # Errors
/// When the line cannot be read, or the message is none.
pub(crate) fn receive<Message: DeserializeOwned>(
    line: &mut impl BufRead,
) -> std::io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if line.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some(message) = text.trim_end().strip_prefix(MARK) {
            return Ok(Some(serde_json::from_str(message)?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_among_lines_of_others() {
        let mut line = b"Checking that ptrace works...OK\nhalf a li".to_vec();
        send(&mut line, &Report::Output("a \u{fffd}\n\"b\"".to_owned())).unwrap();
        line.extend(b"[    0.1] nvme\r\n");
        send(&mut line, &Report::Ready).unwrap();
        let mut line = &line[..];
        let first = receive::<Report>(&mut line).unwrap();
        assert_eq!(first, Some(Report::Output("a \u{fffd}\n\"b\"".to_owned())));
        assert_eq!(receive::<Report>(&mut line).unwrap(), Some(Report::Ready));
        assert_eq!(receive::<Report>(&mut line).unwrap(), None);
    }

    #[test]
    fn a_garbled_message_is_an_error() {
        let text = format!("{MARK}{{\"Rea\n");
        assert!(receive::<Report>(&mut text.as_bytes()).is_err());
    }
}

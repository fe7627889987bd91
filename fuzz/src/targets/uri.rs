//! Addresses and sizes as users write them: parsing never panics, an error is a sentence, and what
//! was parsed prints to something that parses to the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cache_engine::backend::address::{CacheAddress, Endpoint, OriginAddress, Size};
use cache_engine::frontend::nbd::ExportAddress;

use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::runner::INPUT_LENGTH_MAX;

/// The target.
pub const TARGET: Target =
    Target { name: "uri", length_max: INPUT_LENGTH_MAX, run, cost: 1, seeds };

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let text = String::from_utf8_lossy(input);
    round_trip::<OriginAddress>(&text, &mut observer);
    round_trip::<CacheAddress>(&text, &mut observer);
    round_trip::<ExportAddress>(&text, &mut observer);
    round_trip::<Size>(&text, &mut observer);
    round_trip::<Endpoint>(&text, &mut observer);
    observer.behaviour()
}

fn round_trip<Value>(text: &str, observer: &mut Observer)
where
    Value: FromStr<Err: Display> + Display + Debug + PartialEq,
{
    match text.parse::<Value>() {
        Ok(value) => {
            observer.note("parsed");
            let printed = value.to_string();
            match printed.parse::<Value>() {
                Ok(again) => assert_eq!(again, value, "`{text}` printed as `{printed}`"),
                Err(error) => panic!("`{text}` printed as `{printed}`, which is refused: {error}"),
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty(), "`{text}` was refused without a word");
            observer.note_message(&message, text);
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "file:/dev/nvme0n1",
        "file:///a%20b/c",
        "file:relative/path",
        "memory:1GiB",
        "memory:",
        "null:4k",
        "nvme+tcp://127.0.0.1:4420/nqn.2026-01.io.forebay:disks?nsid=1",
        "nvme+tcp://[fe80::1%25eth0]:4420/nqn.2014-08.org.nvmexpress.discovery",
        "nvme+tcp://storage.example/nqn.2026-01.io.forebay:a?nsid=2&nsid=3",
        "nbd+unix:///volume?socket=/run/forebay.sock",
        "nbd+unix:///a%2fb?socket=%2Ftmp%2Fs",
        "nbd://127.0.0.1/volume",
        "nbd://[::1]:10809/",
        "[::1]:8009",
        "localhost:4420",
        "4096",
        "64k",
        "1.5GiB",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

//! A reservation as text, for whoever keeps it through a power loss.
//!
//! ```text
//!   forebay reservation 1
//!   namespace 01010101-0101-0101-0101-010101010101
//!   generation 7
//!   held 3 09090909-0909-0909-0909-090909090909
//!   registrant 09090909-0909-0909-0909-090909090909 0x00000000000000ab
//!   end
//! ```
//! The last line tells a whole image from one that was cut short.

use block_io::DeviceError;

use super::state::{Held, REGISTRANTS_MAX, Registrant, State};
use crate::spec::nqn::HostId;
use crate::spec::reservation::ReservationKind;

const HEADER: &str = "forebay reservation 1";

/// The text of what survives a power loss: everything, or nothing.
pub(super) fn encode(state: &State, namespace: HostId) -> String {
    let mut text = format!("{HEADER}\nnamespace {namespace}\n");
    if state.persists {
        text += &format!("generation {}\n", state.generation);
        if let Some(Held { kind, holder }) = state.held {
            text += &format!("held {} {holder}\n", kind as u8);
        }
        for Registrant { host, key } in &state.registrants {
            text += &format!("registrant {host} {key:#018x}\n");
        }
    }
    text + "end\n"
}

/// The state that an image describes.
pub(super) fn parse(text: &str, namespace: HostId) -> Result<State, DeviceError> {
    let wrong = |line: &str, right: &str| {
        DeviceError::new(format!("reservation image: the line {line:?} is wrong: must be {right}"))
    };
    let mut state = State::default();
    let mut is_ours = false;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != HEADER {
        return Err(wrong(first, &format!("{HEADER:?}")));
    }
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["namespace", uuid] if uuid.parse() == Ok(namespace) && !is_ours => is_ours = true,
            ["namespace", _] => return Err(wrong(line, &format!("namespace {namespace}, once"))),
            _ if !is_ours => {
                return Err(wrong(line, &format!("namespace {namespace}, before all else")));
            }
            ["generation", _] if state.persists => return Err(wrong(line, "the only generation")),
            ["held" | "registrant", ..] if !state.persists => {
                return Err(wrong(line, "behind a line of the generation"));
            }
            ["held", ..] if state.held.is_some() => return Err(wrong(line, "the only holder")),
            ["generation", count] => {
                state.generation =
                    count.parse().map_err(|_| wrong(line, "generation and a number"))?;
                state.persists = true;
            }
            ["held", kind, holder] => {
                let kind = kind.parse().ok().and_then(ReservationKind::parse);
                let (Some(kind), Ok(holder)) = (kind, holder.parse()) else {
                    return Err(wrong(line, "held, a kind from 1 to 6 and a host identifier"));
                };
                state.held = Some(Held { kind, holder });
            }
            ["registrant", host, key] => {
                let digits = key.strip_prefix("0x").unwrap_or_default();
                let (Ok(host), Ok(key)) = (host.parse(), u64::from_str_radix(digits, 16)) else {
                    return Err(wrong(line, "registrant, a host identifier and a key"));
                };
                if state.registrants.iter().any(|registrant| registrant.host == host) {
                    return Err(wrong(line, "of a host that is not registered twice"));
                }
                if state.registrants.len() == REGISTRANTS_MAX {
                    return Err(wrong(line, "one of at most 128 registrants"));
                }
                state.registrants.push(Registrant { host, key });
            }
            ["end"] => {
                let last = lines.next();
                return match last {
                    None => check(state),
                    Some(line) => Err(wrong(line, "nothing after the end")),
                };
            }
            _ => return Err(wrong(line, "namespace, generation, held, registrant or end")),
        }
    }
    Err(DeviceError::new("reservation image: cut short, must end with a line \"end\""))
}

/// A holder that is no registrant could never give its reservation up.
fn check(state: State) -> Result<State, DeviceError> {
    let is_registrant =
        |host: HostId| state.registrants.iter().any(|registrant| registrant.host == host);
    let is_sound = match state.held {
        None => true,
        Some(held) if held.kind.is_all_registrants() => !state.registrants.is_empty(),
        Some(held) => is_registrant(held.holder),
    };
    if !is_sound {
        return Err(DeviceError::new("reservation image: held by a host that is no registrant"));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: HostId = HostId([1; 16]);

    fn state() -> State {
        let kind = ReservationKind::WriteExclusiveRegistrantsOnly;
        State {
            registrants: vec![
                Registrant { host: HostId([9; 16]), key: 0xab },
                Registrant { host: HostId([8; 16]), key: u64::MAX },
            ],
            held: Some(Held { kind, holder: HostId([9; 16]) }),
            generation: 7,
            persists: true,
        }
    }

    #[test]
    fn what_persists_survives_and_what_does_not_is_gone() {
        let text = encode(&state(), NAMESPACE);
        assert_eq!(parse(&text, NAMESPACE).expect("an image"), state());
        let text = encode(&State { persists: false, ..state() }, NAMESPACE);
        assert_eq!(parse(&text, NAMESPACE).expect("an image"), State::default());
    }

    #[test]
    fn an_image_that_is_cut_short_or_anothers_is_refused_by_name() {
        let text = encode(&state(), NAMESPACE);
        for end in 0..text.len() - 1 {
            assert!(parse(&text[..end], NAMESPACE).is_err(), "the first {end} bytes");
        }
        assert!(parse(&text, HostId([2; 16])).expect_err("another's").to_string().contains("0101"));
        for (from, to) in [
            ("held 3", "held 7"),
            ("held 3 09", "held 3 07"),
            ("generation 7", "generation -7"),
            ("0xff", "ff"),
            ("end\n", "end\nmore\n"),
            ("reservation 1", "reservation 2"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(parse(&text.replace(from, to), NAMESPACE).is_err(), "{to}");
        }
    }

    #[test]
    fn an_image_that_says_something_twice_or_leaves_it_out_is_refused() {
        let text = encode(&state(), NAMESPACE);
        let line = |word: &str| {
            let found = text.lines().find(|line| line.starts_with(word));
            format!("{}\n", found.expect("it is there"))
        };
        for word in ["namespace", "generation", "held", "registrant"] {
            let line = line(word);
            assert!(
                parse(&text.replace(&line, &line.repeat(2)), NAMESPACE).is_err(),
                "two: {line}"
            );
        }
        for word in ["namespace", "generation"] {
            assert!(parse(&text.replace(&line(word), ""), NAMESPACE).is_err(), "no {word}");
        }
        let header_only = format!("{HEADER}\nend\n");
        assert!(parse(&header_only, NAMESPACE).is_err(), "of no namespace");
    }
}

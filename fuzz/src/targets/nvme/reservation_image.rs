//! The text of a kept reservation, of a file that anybody may have written: it is refused by line,
//! or taken whole, and then what would be kept next says as much and reads as the same again.

use block_io::Geometry;
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::target::Namespace;

use crate::Target;
use crate::behaviour::{Behaviour, Observer};

/// The target. The input is the text.
pub const TARGET: Target =
    Target { name: "reservation_image", length_max: 2048, run, cost: 1, seeds };

const NAMESPACE: HostId = HostId([1; 16]);

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Ok(text) = std::str::from_utf8(input) else { return observer.behaviour() };
    let namespace = || Namespace::new(Geometry::new(1 << 20), NAMESPACE).expect("a sound one");
    match namespace().with_kept_reservations(Some(text)) {
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("reservation image: "), "{message}");
            observer.note_message(&message, text);
        }
        Ok(taken) => {
            let image = taken.reservation_image();
            let again = namespace().with_kept_reservations(Some(&image)).expect("our own image");
            assert_eq!(again.reservation_image(), image, "of {text:?}");
            for word in ["namespace", "generation", "held", "registrant"] {
                assert_eq!(lines(&image, word), lines(text, word), "{word} in {text:?}");
            }
            observer.note_magnitude(image.lines().count() as u64);
            observer.note(image.contains("held"));
        }
    }
    observer.behaviour()
}

fn lines(text: &str, word: &str) -> usize {
    text.lines().filter(|line| line.split_ascii_whitespace().next() == Some(word)).count()
}

fn seeds() -> Vec<Vec<u8>> {
    let own = "01010101-0101-0101-0101-010101010101";
    let (one, two) =
        ("09090909-0909-0909-0909-090909090909", "08080808-0808-0808-0808-080808080808");
    let registrants = format!("registrant {one} 0x00000000000000ab\nregistrant {two} 0x01\n");
    [
        format!("forebay reservation 1\nnamespace {own}\nend\n"),
        format!("forebay reservation 1\nnamespace {own}\ngeneration 7\n{registrants}end\n"),
        format!(
            "forebay reservation 1\nnamespace {own}\ngeneration 7\nheld 3 {one}\n{registrants}end\n"
        ),
        format!("forebay reservation 1\nnamespace {two}\nend\n"),
    ]
    .map(String::into_bytes)
    .into()
}

//! Encrypted caches: what is on the device, which keys open it, and what `forebay cache check`
//! makes of it.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use super::{LINE, LINES, MARK, Machine, forebay};

/// Whether any of the origin's text is on the cache device.
fn holds_plain_text(cache: &Path) -> bool {
    let content = std::fs::read(cache).expect("there");
    content.chunks(512).any(|part| part.starts_with(MARK))
}

#[test]
fn an_encrypted_cache_holds_no_plain_text_and_is_warm_with_its_key_only() {
    let machine = Machine::new();
    machine.fill("disk", "plain", &[]);
    assert!(holds_plain_text(&machine.path("plain")), "or the test shows nothing");
    let (key, other) = (machine.key("key", 'a'), machine.key("other", 'b'));
    let (key, other) = (["--encryption-key", &key], ["--encryption-key", &other]);
    machine.fill("disk", "cache", &key);
    assert!(!holds_plain_text(&machine.path("cache")));
    assert_eq!(machine.warm_hits("disk", "cache", &key), LINES);
    machine.assert_cold("disk", "cache", &other, "encrypted with another key");
    machine.assert_cold("disk", "cache", &[], "no encryption key was given");
    machine.assert_cold("disk", "cache", &key, "and an encryption key was given");
    machine.fill("disk", "cache", &key);
}

/// What `forebay cache check` finds of the volume's content, and what it says.
fn check(machine: &Machine, key: &[&str]) -> (Value, String, bool) {
    let (cache, origin) = (machine.text("cache"), machine.origin("disk"));
    let arguments = [&["cache", "check", &cache, "--origin", &origin, "--json"], key].concat();
    let output = forebay(&arguments);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (found, said, output.status.success())
}

#[test]
fn a_check_with_the_key_compares_content_and_no_other_key_does() {
    const BLOCKS: u64 = LINES * LINE / 4096;
    let machine = Machine::new();
    let (key, other) = (machine.key("key", 'a'), machine.key("other", 'b'));
    let (key, other) = (["--encryption-key", &key], ["--encryption-key", &other]);
    machine.fill("disk", "cache", &key);
    let (found, said, whole) = check(&machine, &key);
    assert!(whole, "{said}");
    let counts = |found: &Value| {
        ["checksums_compared", "blocks_compared"].map(|name| found[name].as_u64().expect("there"))
    };
    assert_eq!(counts(&found), [BLOCKS, BLOCKS]);
    let (_, said, whole) = check(&machine, &other);
    assert!(!whole && said.contains("'volume' was encrypted with another key"), "{said}");
    let (_, said, whole) = check(&machine, &["--encryption-key", "file:/none/such"]);
    assert!(!whole && said.contains("file:/none/such"), "{said}");
    let (found, said, whole) = check(&machine, &[]);
    assert!(whole && said.contains("without --encryption-key its checksums"), "{said}");
    assert_eq!(counts(&found), [BLOCKS, 0]);
    // One block of the origin, behind the cache's back.
    let disk = std::fs::File::options().write(true).open(machine.path("disk")).expect("opens");
    disk.write_all_at(b"?", 5 * 4096 + 77).expect("written");
    let (found, said, whole) = check(&machine, &key);
    assert!(!whole && said.contains("damaged in 1 places"), "{said}");
    assert_eq!(found["damage"]["count"], 1);
    let first = found["damage"]["first"][0].as_str().expect("in words");
    assert!(first.ends_with("byte 20480 of the volume: not what the origin has"), "{first}");
    assert!(check(&machine, &[]).2, "without the key nobody can tell");
}

#[test]
fn a_key_for_a_volume_without_encryption_is_refused() {
    let machine = Machine::new();
    machine.fill("disk", "cache", &[]);
    let key = machine.key("key", 'a');
    let (_, said, whole) = check(&machine, &["--encryption-key", &key]);
    assert!(!whole && said.contains("'volume' is not encrypted"), "{said}");
}

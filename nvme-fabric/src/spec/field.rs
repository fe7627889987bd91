//! Little-endian fields at fixed offsets of fixed-size structures.
//!
//! Offsets are constants of a layout and structures have a checked size, so a wrong offset is a
//! fault of ours and panics; nothing here is called with a length or offset from a peer.
//! Base, "Byte, Word, and Dword Relationships".

/// The `u16` at `offset`.
#[track_caller]
pub const fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// The `u32` at `offset`.
#[track_caller]
pub const fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    (u16_at(bytes, offset) as u32) | ((u16_at(bytes, offset + 2) as u32) << 16)
}

/// The `u64` at `offset`.
#[track_caller]
pub const fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    (u32_at(bytes, offset) as u64) | ((u32_at(bytes, offset + 4) as u64) << 32)
}

/// The 16 bytes at `offset`.
#[track_caller]
pub fn bytes16_at(bytes: &[u8], offset: usize) -> [u8; 16] {
    let mut value = [0; 16];
    value.copy_from_slice(&bytes[offset..offset + 16]);
    value
}

/// Writes `value` at `offset`.
#[track_caller]
pub fn put_u16(bytes: &mut [u8], offset: usize, value: u16) {
    put(bytes, offset, &value.to_le_bytes());
}

/// Writes `value` at `offset`.
#[track_caller]
pub fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    put(bytes, offset, &value.to_le_bytes());
}

/// Writes `value` at `offset`.
#[track_caller]
pub fn put_u64(bytes: &mut [u8], offset: usize, value: u64) {
    put(bytes, offset, &value.to_le_bytes());
}

/// Writes `value` at `offset`.
#[track_caller]
pub fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// Writes `text` into the fixed-width field of `width` bytes at `offset`, cut to fit, the rest
/// filled with `padding`.
#[track_caller]
pub fn put_text(bytes: &mut [u8], offset: usize, width: usize, text: &str, padding: u8) {
    let place = &mut bytes[offset..offset + width];
    place.fill(padding);
    let length = text.len().min(width);
    place[..length].copy_from_slice(&text.as_bytes()[..length]);
}

/// The text of a fixed-width field: up to the first NUL, spaces at the end removed, bytes outside
/// printable ASCII replaced by `?` (a peer's text ends up on terminals).
#[track_caller]
pub fn text_at(bytes: &[u8], offset: usize, width: usize) -> String {
    let place = &bytes[offset..offset + width];
    let end = place.iter().position(|byte| *byte == 0).unwrap_or(width);
    let text: String = place[..end]
        .iter()
        .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' })
        .collect();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_endian() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(u16_at(&bytes, 1), 0x0302);
        assert_eq!(u32_at(&bytes, 1), 0x0504_0302);
        assert_eq!(u64_at(&bytes, 1), 0x0908_0706_0504_0302);
    }

    #[test]
    fn text_is_padded_and_trimmed_either_way() {
        let mut bytes = [0xff; 8];
        put_text(&mut bytes, 1, 6, "4420", b' ');
        assert_eq!(&bytes, b"\xff4420  \xff");
        assert_eq!(text_at(&bytes, 1, 6), "4420");
        put_text(&mut bytes, 1, 6, "longer than it", 0);
        assert_eq!(text_at(&bytes, 1, 6), "longer");
        assert_eq!(text_at(b"a\x1b[\0b", 0, 5), "a?[");
    }
}

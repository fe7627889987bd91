//! Percent-encoding of URI parts (RFC 3986 §2.1), over bytes: a Linux path need not be UTF-8.

use std::fmt::Write;

use super::AddressError;

/// The bytes that `text`, a part of `whole`, stands for.
///
/// # Errors
/// When a `%` is not followed by two hexadecimal digits, or stands for NUL, which neither a path
/// nor a name can hold.
pub(crate) fn decode(text: &str, whole: &str) -> Result<Vec<u8>, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(0) => {
                return Err(AddressError::new(format!("`{whole}`: %00 cannot be part of a name")));
            }
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                return Err(AddressError::new(format!(
                    "`{whole}`: `%` must be followed by two hexadecimal digits; write %25 for a \
                     percent sign"
                )));
            }
        }
    }
    if bytes.contains(&0) {
        return Err(AddressError::new(format!("`{whole}`: a NUL cannot be part of a name")));
    }
    Ok(bytes)
}

/// `bytes` as a URI part: letters, digits and `kept` stay, the rest is encoded.
pub(crate) fn encode(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_but_nul_comes_back() {
        let bytes: Vec<u8> = (1..=255).collect();
        let text = encode(&bytes, b"/-._~");
        assert_eq!(decode(&text, &text), Ok(bytes));
        assert!(text.contains("%25") && text.contains("%FF"), "{text}");
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "a%2", "%zz", "%+1", "%é", "%00", "a\0b"] {
            let error = decode(text, text).expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}

//! The transactions of the key-value app: `key=value` (wire section 7.1).

use baton_messages::types::Tx;
use bytes::Bytes;

/// What a valid transaction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub key: Bytes,
    pub value: Bytes,
}

/// Reads a transaction; the error is the reason to skip it.
///
/// Split at the first `=`, both sides trimmed of Unicode white space as Go's
/// `strings.TrimSpace` does it. Keys and values are bytes: they need not be UTF-8. An empty value is
/// a value; an empty key is none.
pub(super) fn parse(tx: &Tx) -> Result<Assignment, &'static str> {
    if tx.0.is_empty() {
        return Err("empty");
    }
    let split = tx.0.iter().position(|byte| *byte == b'=').ok_or("not key=value")?;
    let (key, value) = (trim(&tx.0.slice(..split)), trim(&tx.0.slice(split + 1..)));
    if key.is_empty() {
        return Err("empty key");
    }
    Ok(Assignment { key, value })
}

/// Without white space at both ends. Invalid UTF-8 is not white space.
fn trim(bytes: &Bytes) -> Bytes {
    let is_plain = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
    if is_plain(bytes.first()) && is_plain(bytes.last()) {
        return bytes.clone();
    }
    let (mut at, mut start, mut end) = (0, None, 0);
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        if let Some(offset) = text.find(|letter: char| !letter.is_whitespace()) {
            start.get_or_insert(at + offset);
            end = at + text.trim_end().len();
        }
        at += text.len();
        if !chunk.invalid().is_empty() {
            start.get_or_insert(at);
            at += chunk.invalid().len();
            end = at;
        }
    }
    start.map_or_else(Bytes::new, |start| bytes.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<(Bytes, Bytes), &'static str> {
        parse(&Tx(Bytes::from_static(bytes))).map(|set| (set.key, set.value))
    }

    fn set(key: &'static [u8], value: &'static [u8]) -> Result<(Bytes, Bytes), &'static str> {
        Ok((Bytes::from_static(key), Bytes::from_static(value)))
    }

    #[test]
    fn the_first_equals_sign_splits_and_both_sides_are_trimmed() {
        assert_eq!(read(b"a=1"), set(b"a", b"1"));
        assert_eq!(read(b" a \t= 1=2 \n"), set(b"a", b"1=2"));
        assert_eq!(read(b"a b = c d "), set(b"a b", b"c d"));
        assert_eq!(read(b"a="), set(b"a", b""));
        assert_eq!(read(b"a= \x0b\x0c\r"), set(b"a", b""));
    }

    #[test]
    fn unicode_space_is_trimmed_and_other_bytes_stay() {
        assert_eq!(read("\u{2003}a\u{a0}=\u{85}ä ".as_bytes()), set(b"a", "ä".as_bytes()));
        assert_eq!(read(b"\xff = \xfe\x00 "), set(b"\xff", b"\xfe\x00"));
        assert_eq!(read(b" \xff \xff = x"), set(b"\xff \xff", b"x"));
        assert_eq!(read(b" a \xff = b\xff c "), set(b"a \xff", b"b\xff c"));
    }

    #[test]
    fn what_is_no_assignment_says_why() {
        assert_eq!(read(b""), Err("empty"));
        assert_eq!(read(b"hello"), Err("not key=value"));
        assert_eq!(read(b"=x"), Err("empty key"));
        assert_eq!(read(b" \t =x"), Err("empty key"));
    }

    proptest::proptest! {
        #[test]
        fn text_is_trimmed_as_the_standard_library_does(text in "[ \t\u{a0}\u{2003}aä]{0,12}") {
            let trimmed = trim(&Bytes::from(text.clone()));
            proptest::prop_assert_eq!(&trimmed[..], text.trim().as_bytes());
        }
    }
}

//! Dictionaries as libFuzzer reads them: a line is `"a word"`, with `\\`, `\"` and `\xAB` in it, or begins with `#`.

use std::fs;
use std::path::Path;

/// # Panics
///
/// There is no such file, or a line of it isn't one of a dictionary.
pub(crate) fn read(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().zip(1..);
    lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| {
            let word = line
                .strip_prefix('"')
                .and_then(|line| line.strip_suffix('"'))
                .and_then(word);
            word.unwrap_or_else(|| panic!("{}: line {number} isn't a word: {line}", path.display()))
        })
        .collect()
}

/// The bytes that stand between quotation marks.
fn word(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let (byte, length) = match first {
            b'\\' if rest.starts_with("\\x") => (u8::from_str_radix(rest.get(2..4)?, 16).ok()?, 4),
            b'\\' => (
                *rest
                    .as_bytes()
                    .get(1)
                    .filter(|byte| matches!(byte, b'\\' | b'"'))?,
                2,
            ),
            b'"' => return None,
            b' '..=b'~' => (first, 1),
            _ => return None,
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[test]
fn words_are_read_as_libfuzzer_reads_them() {
    assert_eq!(word("a: b"), Some(b"a: b".to_vec()));
    assert_eq!(word(r#"\\\"\x00\xfFg"#), Some(b"\\\"\x00\xffg".to_vec()));
    for not_a_word in ["", "\"", "\\", "\\n", "\\x0", "\\xgg", "é"] {
        assert_eq!(word(not_a_word), None, "{not_a_word:?}");
    }
}

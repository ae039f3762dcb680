//! Parts of a server's replies: hashes, entity tags, and text for users.

use sha2::{Digest, Sha256};
use tightrope_formats::files::hexadecimal;

/// Whether the text is the full id of a commit: SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    is_hash(text)
}

/// Whether the text is the SHA-256 of a file, which large files have as entity tag.
pub(super) fn is_sha256(text: &str) -> bool {
    is_hash(text) && text.len() == 64
}

fn is_hash(text: &str) -> bool {
    let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    matches!(text.len(), 40 | 64) && text.bytes().all(digit)
}

/// The entity tag without quotes and without the mark of a weak tag.
pub(super) fn bare_etag(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// Name in `blobs/` of a file with this entity tag: the tag itself if it is a hash, as for all
/// files of the public hub; otherwise a hash of the tag and of `place`, which no other file has.
pub(super) fn blob_name(etag: &str, place: &str) -> String {
    match is_hash(etag) {
        true => etag.to_owned(),
        false => {
            let both = format!("{place}\0{etag}");
            hexadecimal(&Sha256::digest(both.as_bytes()))
        }
    }
}

/// Text of a server in a form that is safe for terminals: one line, of limited length, with control
/// characters escaped.
pub(super) fn plain(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|c| match c.is_control() || is_invisible(c) {
            true => c.escape_unicode().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Characters that reorder or hide their neighbours.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_tag_never_becomes_a_path() {
        let (sha1, sha256) = ("0a".repeat(20), "0b".repeat(32));
        assert_eq!(blob_name(bare_etag(&format!("\"{sha1}\"")), "a"), sha1);
        assert_eq!(
            blob_name(bare_etag(&format!("W/\"{sha256}\"")), "a"),
            sha256
        );
        for tag in [
            "../../pwn",
            "/etc/passwd",
            "",
            "a\0",
            "1234-5",
            &"x".repeat(9999),
        ] {
            assert!(is_sha256(&blob_name(tag, "a")), "{tag}");
        }
        assert_ne!(blob_name("e", "a"), blob_name("e", "b"));
    }

    #[test]
    fn commits_are_hashes() {
        assert!(is_commit(&"ab".repeat(20)) && is_commit(&"01".repeat(32)));
        for bad in ["main", "../../x", "", &"AB".repeat(20), &"ab".repeat(21)] {
            assert!(!is_commit(bad), "{bad}");
        }
    }

    #[test]
    fn text_of_servers_is_shown_in_one_plain_line() {
        assert_eq!(
            plain("a\u{1b}[31m\nb\u{202e}c"),
            r"a\u{1b}[31m\u{a}b\u{202e}c"
        );
        assert_eq!(plain(&"é".repeat(200)).chars().count(), 121);
    }
}

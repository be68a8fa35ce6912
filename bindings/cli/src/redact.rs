//! What must not be printed as it is: passwords, and control characters from events.

use std::borrow::Cow;

use tidings::transport::registry::redact;

/// The text with the password of every URL in it replaced.
pub(crate) fn urls(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || "'\"`".contains(c)) {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || "'\"`".contains(c));
        // `--option=URL` begins before its scheme.
        let start = word.find("://").map_or(0, |at| word[..at].rfind('=').map_or(0, |equals| equals + 1));
        if word[start..].contains('@') && word[start..].contains(':') {
            done.push_str(&word[..start]);
            done.push_str(&redact(&word[start..]));
            done.push_str(&piece[word.len()..]);
        } else {
            done.push_str(piece);
        }
    }
    done
}

/// The text with control characters written out: what an event brings must not move the terminal's cursor.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() || is_reordering(c)) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|c| if c.is_control() || is_reordering(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect::<String>()
        .into()
}

/// Characters that make text look like other text.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_go_wherever_they_are() {
        for (text, clean) in [
            ("error: unexpected 'amqp://u:secret@h/v' found", "error: unexpected 'amqp://u:***@h/v' found"),
            ("--broker=amqp://u:secret@h\n", "--broker=amqp://u:***@h\n"),
            ("u:secret@h", "u:***@h"),
            ("mail a@b.c at 10:30", "mail a@b.c at 10:30"),
            ("sqlite:a.db, nothing here", "sqlite:a.db, nothing here"),
        ] {
            assert_eq!(urls(text), clean);
        }
    }

    #[test]
    fn an_event_does_not_move_the_cursor() {
        assert_eq!(visible("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert!(matches!(visible("ä €"), Cow::Borrowed(_)));
    }
}

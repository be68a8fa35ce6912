//! Binding keys: patterns over routing keys.

use super::MAX_KEY;
use crate::{Error, ErrorKind, Result};

/// Accepts a binding key: 1 to 255 bytes, words separated by dots, `*` and `#` only as whole words.
pub fn check_binding_key(key: &str) -> Result<()> {
    let (message, remedy) = if key.is_empty() {
        ("the binding key is empty".to_owned(), "bind # to receive everything")
    } else if key.len() > MAX_KEY {
        (format!("the binding key has {} bytes, at most {MAX_KEY} are possible", key.len()), "shorten it with #")
    } else if key.split('.').any(|word| word.len() > 1 && word.contains(['*', '#'])) {
        (
            "the binding key has a wildcard inside a word".to_owned(),
            "* stands for exactly one word and # for any number of words",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidBindingKey, message).field("binding_key", key).remedy(remedy))
}

/// Whether `binding_key` matches `routing_key`: `*` is exactly one word, `#` is zero or more.
///
/// For one pair; [`Trie`](super::Trie) is for many bindings.
pub fn matches(binding_key: &str, routing_key: &str) -> bool {
    // Backtracks to the last `#` only: a later `#` can take over whatever an earlier one could.
    let pattern: Vec<&str> = binding_key.split('.').collect();
    let words: Vec<&str> = routing_key.split('.').collect();
    let (mut p, mut w, mut resume) = (0, 0, None);
    while w < words.len() {
        match pattern.get(p) {
            Some(&"#") => {
                resume = Some((p, w));
                p += 1;
            }
            Some(&part) if part == "*" || part == words[w] => {
                p += 1;
                w += 1;
            }
            _ => match &mut resume {
                Some((hash, from)) => {
                    *from += 1;
                    (p, w) = (*hash + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|part| *part == "#")
}

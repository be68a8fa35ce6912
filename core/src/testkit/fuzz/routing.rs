//! Routing keys and the keys that bind them.

use super::bytes::Bytes;
use crate::routing::{Trie, check_binding_key, check_routing_key, matches};

/// The trie, the matcher and the definition agree.
pub(super) fn routing(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let key = bytes.text();
    let bindings: Vec<String> = (0..bytes.byte() % 8).map(|_| bytes.text()).collect();
    let valid: Vec<_> = bindings.iter().filter(|binding| check_binding_key(binding).is_ok()).collect();
    if check_routing_key(&key).is_err() {
        return;
    }
    let words: Vec<_> = key.split('.').collect();
    let mut trie = Trie::new();
    for (number, binding) in valid.iter().enumerate() {
        trie.insert(binding, number);
    }
    let mut found = trie.matches(&key);
    found.sort_unstable();
    found.dedup();
    let by_definition = |binding: &str| defined(&binding.split('.').collect::<Vec<_>>(), &words);
    for (number, binding) in valid.iter().enumerate() {
        let expected = by_definition(binding);
        assert_eq!(matches(binding, &key), expected, "{binding:?} and {key:?}");
        assert_eq!(found.contains(&number), expected, "{binding:?} and {key:?} in the trie");
    }
}

/// `*` is one word, `#` any number of them, none included.
fn defined(pattern: &[&str], words: &[&str]) -> bool {
    // Row by row, so that many `#` take no longer than few: whether the pattern so far matches the first so many words.
    let mut row: Vec<bool> = (0..=words.len()).map(|taken| taken == 0).collect();
    for part in pattern {
        let mut next = vec![false; row.len()];
        for taken in 0..row.len() {
            next[taken] = match *part {
                "#" => row[taken] || (taken > 0 && next[taken - 1]),
                "*" => taken > 0 && row[taken - 1],
                word => taken > 0 && row[taken - 1] && words[taken - 1] == word,
            };
        }
        row = next;
    }
    row[words.len()]
}

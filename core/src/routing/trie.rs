//! All bindings in one tree of words.

use std::collections::HashMap;
use std::sync::Arc;

/// Binding keys with a value each, matched against a routing key in time that depends on the key's words and on the
/// wildcards on its way, not on the number of bindings.
#[derive(Debug, Clone)]
pub struct Trie<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    words: HashMap<Arc<str>, u32>,
    star: Option<u32>,
    hash: Option<u32>,
    values: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { words: HashMap::new(), star: None, hash: None, values: Vec::new() }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl<T: Clone + Ord> Trie<T> {
    /// A trie without bindings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a binding; the same one twice counts once.
    pub fn insert(&mut self, binding_key: &str, value: T) {
        let mut at = 0;
        for word in binding_key.split('.') {
            at = self.child(at, word);
        }
        let values = &mut self.nodes[at as usize].values;
        if !values.contains(&value) {
            values.push(value);
        }
    }

    fn child(&mut self, at: u32, word: &str) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "four billion nodes do not fit into memory")]
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[at as usize];
        let child = match word {
            "*" => *node.star.get_or_insert(next),
            "#" => *node.hash.get_or_insert(next),
            _ => *node.words.entry(word.into()).or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }

    /// The values of all bindings that match, each once, sorted.
    pub fn matches(&self, routing_key: &str) -> Vec<T> {
        // The set of nodes reached after each word; `#` keeps its node in the set. No backtracking, so no blow-up
        // whatever the bindings are.
        let mut current = Vec::with_capacity(4);
        self.enter(0, &mut current);
        for word in routing_key.split('.') {
            let mut next = Vec::with_capacity(current.len());
            for &(at, stays) in &current {
                if stays {
                    self.enter_hash(at, &mut next);
                }
                let node = &self.nodes[at as usize];
                for child in [node.words.get(word).copied(), node.star].into_iter().flatten() {
                    self.enter(child, &mut next);
                }
            }
            current = next;
        }
        let mut found: Vec<T> =
            current.iter().flat_map(|(at, _)| self.nodes[*at as usize].values.iter().cloned()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds a node and, since `#` may stand for no word at all, the `#` below it.
    fn enter(&self, at: u32, set: &mut Vec<(u32, bool)>) {
        if !set.iter().any(|(n, _)| *n == at) {
            set.push((at, false));
            if let Some(hash) = self.nodes[at as usize].hash {
                self.enter_hash(hash, set);
            }
        }
    }

    /// Adds a node that was reached by `#` and may take any further word.
    fn enter_hash(&self, at: u32, set: &mut Vec<(u32, bool)>) {
        if !set.iter().any(|(n, _)| *n == at) {
            set.push((at, true));
            if let Some(hash) = self.nodes[at as usize].hash {
                self.enter_hash(hash, set);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matches;
    use super::*;

    /// The definition, word by word, without any thought of speed.
    fn naive(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern.first(), words.first()) {
            (None, None) => true,
            (Some(&"#"), _) => naive(&pattern[1..], words) || (!words.is_empty() && naive(pattern, &words[1..])),
            (Some(&p), Some(w)) if p == "*" || p == *w => naive(&pattern[1..], &words[1..]),
            _ => false,
        }
    }

    fn split(key: &str) -> Vec<&str> {
        key.split('.').collect()
    }

    #[test]
    fn a_hundred_hashes_do_not_explode() {
        let binding = ["#"; 100].join(".a.");
        let mut trie = Trie::new();
        trie.insert(&binding, 1);
        assert_eq!(trie.matches(&["a"; 120].join(".")), [1]);
        assert!(!matches(&binding, &["b"; 120].join(".")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_the_definition(
            bindings in prop::collection::vec("([abx]|\\*|#)(\\.([abx]|\\*|#)){0,4}", 1..12),
            key in "[abx]?(\\.[abx]?){0,5}",
        ) {
            let mut trie = Trie::new();
            for (i, binding) in bindings.iter().enumerate() {
                trie.insert(binding, i);
            }
            let expected: Vec<usize> =
                (0..bindings.len()).filter(|i| naive(&split(&bindings[*i]), &split(&key))).collect();
            prop_assert_eq!(trie.matches(&key), expected);
            for binding in &bindings {
                prop_assert_eq!(matches(binding, &key), naive(&split(binding), &split(&key)), "{} {}", binding, key);
            }
        }
    }
}

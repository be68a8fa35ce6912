//! [`Inventory`]: what RabbitMQ shows to its operators only.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, ErrorKind, Result, Timestamp};

/// A queue as an operator sees it.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// The user policy that applies to it.
    #[serde(default, deserialize_with = "name_or_nothing")]
    pub policy: Option<String>,
}

/// A policy, or an operator policy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Regular expression over names.
    pub pattern: String,
    /// `queues`, `exchanges`, `all`, `quorum_queues`, `classic_queues`.
    pub apply_to: String,
    /// What it sets.
    pub definition: serde_json::Map<String, Value>,
    /// Set by the operator: applies beside the user's policy.
    pub operator: bool,
}

/// What RabbitMQ shows to its operators only: all queues and policies of one virtual host, and the server's clock.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Inventory {
    /// The queues of the virtual host.
    pub queues: Vec<QueueView>,
    /// Its policies, the operator's too.
    pub policies: Vec<Policy>,
    /// How far the server's clock is from this host's.
    clock_skew: Option<Duration>,
    /// Quorum queues that have no leader, with the names that the server's consensus knows them by; `None`: not known.
    leaderless: Option<Vec<(String, String)>>,
}

#[derive(Deserialize)]
struct RawPolicy {
    name: String,
    pattern: String,
    #[serde(rename = "apply-to")]
    apply_to: String,
    definition: Value,
}

impl Inventory {
    /// Reads the lists that `rabbitmqctl --formatter json` writes.
    pub(super) fn read(queues: &str, policies: &str, operator_policies: &str) -> Result<Self> {
        let queues: Vec<QueueView> = parse("list_queues", queues)?;
        let mut all = Vec::new();
        for (what, text, operator) in
            [("list_policies", policies, false), ("list_operator_policies", operator_policies, true)]
        {
            for raw in parse::<Vec<RawPolicy>>(what, text)? {
                // Up to 3.x the definition is JSON within JSON.
                let definition = match raw.definition {
                    Value::String(text) => parse(what, &text)?,
                    Value::Object(map) => map,
                    _ => serde_json::Map::new(),
                };
                let RawPolicy { name, pattern, apply_to, .. } = raw;
                all.push(Policy { name, pattern, apply_to, definition, operator });
            }
        }
        Ok(Self { queues, policies: all, clock_skew: None, leaderless: None })
    }

    pub(super) fn set_clock(&mut self, server: Timestamp, asked: Timestamp, answered: Timestamp) {
        // Whenever between question and answer the server looked at its clock.
        self.clock_skew = Some(asked.since(server).max(server.since(answered)));
    }

    /// Takes what [`LEADERLESS`](super::rabbitmqctl) evaluates to: `<<"queue=name,queue=name">>`, in as many pieces as it is
    /// printed in.
    pub(super) fn set_leaderless(&mut self, printed: &str) {
        let Some(text) = printed.trim().strip_prefix("<<").and_then(|text| text.strip_suffix(">>")) else { return };
        let text: String = text.split('"').skip(1).step_by(2).collect();
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        self.leaderless = Some(pairs.map(|(queue, name)| (queue.to_owned(), name.to_owned())).collect());
    }

    /// Quorum queues without a leader, each with the name that the server's consensus knows it by; `None` if that could not
    /// be found out.
    pub fn leaderless(&self) -> Option<&[(String, String)]> {
        self.leaderless.as_deref()
    }

    /// How far the server's clock is from this host's, if it was asked.
    pub fn clock_skew(&self) -> Option<Duration> {
        self.clock_skew
    }

    /// The subscriptions among the queues: those that have a queue for dead letters.
    pub fn subscriptions(&self) -> Vec<String> {
        let has = |name: &str| self.queues.iter().any(|queue| queue.name == name);
        let is = |name: &&str| has(&format!("{name}-dl")) && crate::routing::check_subscription_name(name).is_ok();
        self.queues.iter().map(|queue| queue.name.as_str()).filter(is).map(str::to_owned).collect()
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    // Some versions print a line about the time-out before the list.
    let start = text.find(['[', '{']).unwrap_or(0);
    serde_json::from_str(&text[start..]).map_err(|e| {
        Error::new(ErrorKind::InvalidOption, format!("the answer of {what} is not the list that was asked for: {e}"))
            .field("rabbitmqctl", text.lines().next().unwrap_or_default())
            .remedy("give a command that runs RabbitMQ's own rabbitmqctl with --formatter json")
    })
}

/// Before there is a policy, versions say an empty text, `null` or nothing.
fn name_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(name) if !name.is_empty() => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_definition_are_read() {
        let queues = r#"[{"name":"billing","policy":""},{"name":"billing-dl","policy":"p"},{"name":"other"}]"#;
        let old = r#"[{"vhost":"/","name":"p","pattern":"^b","apply-to":"queues","definition":"{\"expires\":5}","priority":0}]"#;
        let new =
            r#"[{"vhost":"/","name":"o","pattern":".*","apply-to":"all","definition":{"max-length":1},"priority":0}]"#;
        let inventory = Inventory::read(queues, old, new).unwrap();
        assert_eq!(inventory.subscriptions(), ["billing"]);
        assert_eq!(inventory.queues[1].policy.as_deref(), Some("p"));
        assert_eq!(inventory.policies[0].definition["expires"], 5);
        assert!(inventory.policies[1].operator && inventory.policies[1].definition["max-length"] == 1);
        assert_eq!(Inventory::read("nonsense", "[]", "[]").unwrap_err().code(), "INVALID_OPTION");
    }

    #[test]
    fn queues_without_a_leader_are_read() {
        let read = |printed: &str| {
            let mut inventory = Inventory::default();
            inventory.set_leaderless(printed);
            inventory.leaderless().map(<[_]>::to_vec)
        };
        assert_eq!(read("<<>>\n"), Some(Vec::new()));
        assert_eq!(read("<<\"a=%2F_a,\"\n  \"b=%2F_b\">>").unwrap()[1], ("b".to_owned(), "%2F_b".to_owned()));
        assert_eq!(read("{error,nonsense}"), None);
    }

    #[test]
    fn a_clock_within_the_question_is_right() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let mut inventory = Inventory::default();
        inventory.set_clock(at(11), at(10), at(12));
        assert_eq!(inventory.clock_skew(), Some(Duration::ZERO));
        inventory.set_clock(at(20), at(10), at(12));
        assert_eq!(inventory.clock_skew(), Some(Duration::from_secs(8)));
        inventory.set_clock(at(3), at(10), at(12));
        assert_eq!(inventory.clock_skew(), Some(Duration::from_secs(7)));
    }
}

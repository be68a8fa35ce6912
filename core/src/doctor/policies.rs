//! What policies do to queues of ours.

use serde_json::Value;

use super::inventory::{Inventory, Policy};
use super::{Check, Finding, Level};

/// What Tidings declares as `x-delivery-limit`; a policy can only lower it.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// A finding for every policy that could lose or hold up events, or one that all is well.
pub(super) fn judge(inventory: &Inventory) -> Vec<Finding> {
    let subscriptions = inventory.subscriptions();
    let ours: Vec<_> = inventory.queues.iter().filter(|queue| is_ours(&queue.name, &subscriptions)).collect();
    let mut findings = Vec::new();
    for queue in &ours {
        for policy in &inventory.policies {
            let applies = match &queue.policy {
                _ if policy.apply_to == "exchanges" => Some(false),
                Some(name) if !policy.operator => Some(*name == policy.name),
                None if !policy.operator => Some(false),
                _ => may_match(&policy.pattern, &queue.name),
            };
            if applies != Some(false) {
                findings.extend(effects(policy, &queue.name, applies.is_none()));
            }
        }
    }
    if findings.is_empty() {
        let message = format!("{} policies leave {} queues alone", inventory.policies.len(), ours.len());
        findings.push(Finding::ok(Check::Policies, "virtual host", message));
    }
    findings
}

pub(super) fn is_ours(queue: &str, subscriptions: &[String]) -> bool {
    queue.starts_with("tidings-")
        || subscriptions.iter().any(|name| {
            queue.strip_prefix(name.as_str()).is_some_and(|rest| {
                rest.is_empty()
                    || rest == "-dl"
                    || rest == "-order"
                    || rest.starts_with("-p")
                    || rest.starts_with("-key-")
            })
        })
}

fn effects(policy: &Policy, queue: &str, unsure: bool) -> Vec<Finding> {
    let kind = if policy.operator { "operator policy" } else { "policy" };
    let may = if unsure { format!(" (if {:?} matches it)", policy.pattern) } else { String::new() };
    let number = |key: &str| policy.definition.get(key).and_then(Value::as_i64);
    let mut found = Vec::new();
    let mut add = |check, level, what: String, remedy: &str| {
        let message = format!("{kind} {:?} {what}{may}", policy.name);
        found.push(Finding::new(check, level, queue, message).remedy(remedy));
    };
    if let Some(millis) = number("expires") {
        add(
            Check::Policies,
            Level::Problem,
            format!("deletes the queue with its events when it is unused for {millis} ms"),
            "take `expires` out of the policy, or its pattern off this queue",
        );
    }
    if let Some(millis) = number("message-ttl") {
        add(
            Check::Policies,
            Level::Problem,
            format!("takes events out after {millis} ms"),
            "take `message-ttl` out of the policy, or its pattern off this queue",
        );
    }
    for key in ["max-length", "max-length-bytes"] {
        let Some(limit) = number(key) else { continue };
        let overflow = policy.definition.get("overflow").and_then(Value::as_str);
        if overflow == Some("drop-head") {
            add(
                Check::Policies,
                Level::Problem,
                format!(
                    "sets {key} {limit} with overflow drop-head: a full queue loses its oldest events unless it was declared with reject-publish"
                ),
                "take the limit out, or set overflow to reject-publish",
            );
        } else {
            add(
                Check::Policies,
                Level::Warning,
                format!(
                    "sets {key} {limit}: a full queue refuses events, and delayed ones that are due there hold up the delays of the whole virtual host"
                ),
                "take the limit out, alarm well below it, or give this queue a virtual host of its own",
            );
        }
    }
    if let Some(limit) = number("delivery-limit").filter(|limit| *limit < DELIVERY_LIMIT) {
        add(
            Check::DeliveryLimit,
            Level::Warning,
            format!("lowers the delivery limit to {limit}: the broker itself gives up on events after so many returns"),
            "take `delivery-limit` out of the policy: Tidings counts deliveries itself",
        );
    }
    found
}

/// Whether a policy's pattern matches, as far as it can be told without the server's regular expressions: `None` for
/// patterns with more than literals, `^`, `$` and `.*`.
fn may_match(pattern: &str, name: &str) -> Option<bool> {
    let (anchored, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (to_end, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    let pieces: Vec<String> = rest.split(".*").map(|piece| piece.replace("\\.", "\u{1}")).collect();
    if pieces
        .iter()
        .any(|piece| piece.contains(['.', '\\', '[', ']', '(', ')', '|', '*', '+', '?', '{', '}', '^', '$']))
    {
        return None;
    }
    let mut left = name;
    let last = pieces.len() - 1;
    for (at, piece) in pieces.iter().enumerate() {
        let piece = piece.replace('\u{1}', ".");
        let found = match (at == 0 && anchored, at == last && to_end) {
            (true, true) => (left == piece).then_some(left.len()),
            (true, false) => left.starts_with(&piece).then_some(piece.len()),
            (false, true) => left.ends_with(&piece).then_some(left.len()),
            (false, false) => left.find(&piece).map(|start| start + piece.len()),
        };
        let Some(end) = found else { return Some(false) };
        left = &left[end..];
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(policies: &str, operator: &str) -> Inventory {
        let queues = r#"[{"name":"billing","policy":"p"},{"name":"billing-dl","policy":""},{"name":"foreign","policy":"p"},
                         {"name":"tidings-delay-3","policy":""}]"#;
        Inventory::read(queues, policies, operator).unwrap()
    }

    fn policy(pattern: &str, definition: &str) -> String {
        format!(r#"[{{"name":"p","pattern":"{pattern}","apply-to":"queues","definition":{definition}}}]"#)
    }

    #[test]
    fn every_harm_is_named_with_its_queue() {
        for (definition, check, level) in [
            (r#"{"expires":1000}"#, "policies", "problem"),
            (r#"{"message-ttl":1000}"#, "policies", "problem"),
            (r#"{"max-length":10,"overflow":"drop-head"}"#, "policies", "problem"),
            (r#"{"max-length":10,"overflow":"reject-publish"}"#, "policies", "warning"),
            (r#"{"max-length-bytes":10}"#, "policies", "warning"),
            (r#"{"delivery-limit":5}"#, "delivery-limit", "warning"),
        ] {
            let found = judge(&inventory(&policy("^billing$", definition), "[]"));
            let [finding] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((finding.check.name(), finding.level.name()), (check, level), "{definition}");
            assert_eq!(finding.subject, "billing");
            assert!(finding.remedy.is_some() && finding.message.contains("policy \"p\""));
        }
    }

    #[test]
    fn operator_policies_apply_by_their_pattern() {
        let found = judge(&inventory("[]", &policy("^tidings-", r#"{"message-ttl":5}"#)));
        assert_eq!(found.iter().map(|f| f.subject.as_str()).collect::<Vec<_>>(), ["tidings-delay-3"]);
        let found = judge(&inventory("[]", &policy("^(billing|x)-dl", r#"{"message-ttl":5}"#)));
        assert!(found.iter().all(|f| f.message.contains("if \"^(billing|x)-dl\" matches it")), "{found:?}");
    }

    #[test]
    fn harmless_policies_are_fine() {
        let found = judge(&inventory(&policy(".*", r#"{"queue-mode":"lazy"}"#), "[]"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].level, Level::Ok);
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("", "a", Some(true)),
            (".*", "a", Some(true)),
            ("^a", "ab", Some(true)),
            ("^b", "ab", Some(false)),
            ("b$", "ab", Some(true)),
            ("^a$", "ab", Some(false)),
            ("^a.*b$", "axxb", Some(true)),
            ("^a\\\\.b$", "a.b", None),
            ("^a\\.b$", "a.b", Some(true)),
            ("^a\\.b$", "axb", Some(false)),
            ("a|b", "a", None),
        ] {
            assert_eq!(may_match(pattern, name), expected, "{pattern} {name}");
        }
    }
}

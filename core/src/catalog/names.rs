//! Names that are derived from tags: of subscriptions, and where a catalog gives none, of destinations.

use crate::catalog::digest;
use crate::routing::check_subscription_name;

/// Longest derived name. Subscriptions may have 200 bytes.
const MAX: usize = 200;
/// Bytes of `.` and eight hexadecimal digits.
const SUFFIX: usize = 9;

/// `product.env.broker.topic`, and `:group` behind it if there is one.
pub(super) fn subscription(product: &str, env: &str, broker: &str, topic: &str, group: Option<&str>) -> String {
    let name = derived(&[product, env, broker], topic, group);
    // A reserved ending or part is a matter of the whole name.
    if check_subscription_name(&name).is_ok() { name } else { marked(&name, &[product, env, broker, topic], group) }
}

/// `product.env.topic`.
pub(super) fn destination(product: &str, env: &str, topic: &str) -> String {
    derived(&[product, env], topic, None)
}

/// A name of something that a catalog names in full: what no routing key can have is replaced.
pub(super) fn physical(name: &str) -> String {
    derived(&[], name, None)
}

/// What the names of all subscriptions of a broker begin with, and few others.
pub(super) fn prefix(parts: &[&str]) -> String {
    let name: String = parts.iter().map(|part| safe(part)).collect::<Vec<_>>().join(".");
    let name: String = name.chars().take(MAX - SUFFIX).collect();
    // A marked name may have lost reserved parts; a short prefix finds it all the same.
    if parts.iter().all(|part| safe(part) == *part) && check_subscription_name(&format!("{name}.x")).is_ok() {
        return format!("{name}.");
    }
    String::new()
}

/// Joins tags with dots. Different tags never give the same name: where a character was replaced, or a dot or colon in a tag
/// makes it ambiguous where the tag ends, eight digits of a digest follow.
fn derived(parts: &[&str], last: &str, group: Option<&str>) -> String {
    let all = || parts.iter().copied().chain([last]);
    let name: String = all().map(safe).collect::<Vec<_>>().join(".");
    let exact = all().chain(group).all(|part| safe(part) == part)
        && parts.iter().all(|part| !part.contains('.'))
        && (parts.is_empty() || !last.contains(':'))
        && group.is_none_or(|group| !group.contains(':'))
        && !last.starts_with('.')
        && !last.ends_with('.')
        && !last.contains("..");
    let name = match group {
        Some(group) => format!("{name}:{}", safe(group)),
        None => name,
    };
    if exact && name.len() <= MAX {
        return name;
    }
    marked(&name, &all().collect::<Vec<_>>(), group)
}

fn safe(part: &str) -> String {
    let replaced = |c: char| if c.is_ascii_alphanumeric() || "._:-".contains(c) { c } else { '_' };
    part.chars().map(replaced).collect()
}

/// The name, shortened if need be, with the digest of what it was made from.
fn marked(name: &str, parts: &[&str], group: Option<&str>) -> String {
    // Lengths in front, so that no two lists of tags read the same.
    let exact: Vec<_> = parts.iter().chain(group.iter()).map(|part| format!("{}:{part}", part.len())).collect();
    let kept: String = name.chars().take(MAX - SUFFIX).collect();
    // Reserved parts contain a hyphen at both ends.
    let kept = kept.replace("-delay-", "_delay_").replace("-key-", "_key_");
    let kept = kept.strip_prefix("tidings-").map_or_else(|| kept.clone(), |rest| format!("tidings_{rest}"));
    let kept = kept.replace("..", "._").trim_matches('.').to_owned();
    let kept = if kept.is_empty() { "_".to_owned() } else { kept };
    format!("{kept}.{}", &digest::sha256_hex(exact.concat().as_bytes())[..SUFFIX - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::check_routing_key;
    use proptest::prelude::*;

    #[test]
    fn plain_tags_stay_as_they_are() {
        assert_eq!(
            subscription("my_product", "prd", "sqsbroker", "new-orders", None),
            "my_product.prd.sqsbroker.new-orders"
        );
        assert_eq!(subscription("ws:shop", "prd", "b", "order.placed", None), "ws:shop.prd.b.order.placed");
        assert_eq!(subscription("p", "e", "b", "t", Some("billing")), "p.e.b.t:billing");
        assert_eq!(destination("my_product", "prd", "new-orders"), "my_product.prd.new-orders");
    }

    #[test]
    fn reserved_endings_are_named_otherwise() {
        for topic in ["a-dl", "a-retry", "x-delay-5", "a-key-b", "b-p12"] {
            let name = subscription("p", "e", "b", topic, None);
            check_subscription_name(&name).unwrap();
        }
        check_subscription_name(&subscription("tidings-x", "e", "b", "t", None)).unwrap();
    }

    fn tag() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c.:-]{1,4}", "\\PC{1,12}", "[a-z]{60,90}"]
    }

    proptest! {
        #[test]
        fn any_tags_give_valid_names(p in tag(), e in tag(), b in tag(), t in tag(), g in proptest::option::of(tag())) {
            prop_assert!(check_subscription_name(&subscription(&p, &e, &b, &t, g.as_deref())).is_ok());
            prop_assert!(check_routing_key(&destination(&p, &e, &t)).is_ok());
            prop_assert!(check_routing_key(&physical(&t)).is_ok());
        }

        #[test]
        fn different_tags_give_different_names(a in proptest::collection::vec("[ab.:-]{1,3}", 5), b in proptest::collection::vec("[ab.:-]{1,3}", 5)) {
            let name = |v: &[String]| subscription(&v[0], &v[1], &v[2], &v[3], Some(&v[4]));
            prop_assert_eq!(a == b, name(&a) == name(&b));
            let plain = |v: &[String]| subscription(&v[0], &v[1], &v[2], &v[3], None);
            prop_assert_eq!(a[..4] == b[..4], plain(&a) == plain(&b));
            prop_assert_ne!(name(&a), plain(&b));
        }
    }
}

//! Names of subscriptions and exchanges.

use crate::{Error, ErrorKind, Result};

/// Endings that name something of ours or of `domain-event-broker`'s beside the queue.
const RESERVED_ENDINGS: &[&str] = &["-dl", "-dlx", "-retry", "-order"];
/// Of these, endings of queues; `-retry` is an exchange of `domain-event-broker`'s, which itself takes such a name.
const RESERVED_OF_QUEUES: &[&str] = &["-dl", "-dlx", "-order"];

/// Accepts a subscription's name: `[A-Za-z0-9._:-]{1,200}` without reserved beginnings, endings and parts.
pub fn check_subscription_name(name: &str) -> Result<()> {
    check(name, RESERVED_ENDINGS)
}

/// Accepts the name of a subscription that `domain-event-broker` may have made: also one that ends in `-retry`.
///
/// Errors: `INVALID_NAME`.
pub fn check_peer_name(name: &str) -> Result<()> {
    check(name, RESERVED_OF_QUEUES)
}

fn check(name: &str, reserved_endings: &[&str]) -> Result<()> {
    let error = |message: String, remedy: &str| {
        Err(Error::new(ErrorKind::InvalidName, message).field("subscription", name).remedy(remedy))
    };
    if name.is_empty() || name.len() > 200 {
        return error(format!("the subscription's name has {} bytes", name.len()), "use 1 to 200");
    }
    if let Some(c) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._:-".contains(*c)) {
        return error(format!("the subscription's name has the character {c:?}"), "use letters, digits and . _ : -");
    }
    let partition = name.rsplit_once("-p").is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let reserved = reserved_endings.iter().find(|ending| name.ends_with(**ending)).copied();
    let reserved = reserved
        .or(partition.then_some("-p<digits>"))
        .or_else(|| ["-delay-", "-key-"].into_iter().find(|part| name.contains(part)))
        .or(name.starts_with("tidings-").then_some("tidings-"));
    match reserved {
        Some(part) => error(format!("the subscription's name has the reserved part {part}"), "choose another name"),
        None => Ok(()),
    }
}

/// Accepts an exchange's name: 1 to 127 bytes as AMQP has it, not one of the server's own (`amq.`).
pub fn check_exchange_name(name: &str) -> Result<()> {
    let error = |message: String, remedy: &str| {
        Err(Error::new(ErrorKind::InvalidName, message).field("exchange", name).remedy(remedy))
    };
    if name.is_empty() || name.len() > 127 {
        return error(format!("the exchange's name has {} bytes", name.len()), "use 1 to 127");
    }
    if let Some(c) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._:-".contains(*c)) {
        return error(format!("the exchange's name has the character {c:?}"), "use letters, digits and . _ : -");
    }
    if name.starts_with("amq.") || name.starts_with("tidings-") {
        return error("the exchange's name has a reserved beginning".to_owned(), "choose another name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["billing", "a", "sync-user", "x.y:z_1", "stop-press", "a-pb1"] {
            check_subscription_name(good).unwrap();
        }
        for bad in ["", "a b", "a-dl", "a-dlx", "b-retry", "c-order", "d-p12", "x-delay-5", "x-key-y", "tidings-x", "ü"]
        {
            assert_eq!(check_subscription_name(bad).unwrap_err().code(), "INVALID_NAME", "{bad}");
            assert_eq!(check_peer_name(bad).is_ok(), bad == "b-retry", "{bad}");
        }
    }
}

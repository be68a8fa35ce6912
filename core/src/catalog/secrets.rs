//! `${NAME}` and `$Secret{NAME}` in a configuration's texts.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Result};

/// Where the values of references come from; the default is the process environment.
pub type SecretResolver = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What both forms begin with; `$${` stands for a literal `${`.
const FORMS: [&str; 2] = ["${", "$Secret{"];

/// The texts of `config` with every reference replaced. `at` says where it stands, for errors.
pub(super) fn resolve(config: &Map<String, Value>, at: &str, resolver: &SecretResolver) -> Result<Map<String, Value>> {
    config
        .iter()
        .map(|(key, value)| Ok((key.clone(), resolve_value(value, &format!("{at}.{key}"), resolver)?)))
        .collect()
}

fn resolve_value(value: &Value, at: &str, resolver: &SecretResolver) -> Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(resolve_text(text, at, resolver)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| resolve_value(item, at, resolver)).collect::<Result<_>>()?)
        }
        Value::Object(map) => Value::Object(resolve(map, at, resolver)?),
        other => other.clone(),
    })
}

/// `text` with every reference replaced.
pub(super) fn resolve_text(text: &str, at: &str, resolver: &SecretResolver) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(behind) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = behind;
            continue;
        }
        let Some(inner) = FORMS.iter().find_map(|form| rest.strip_prefix(form)) else {
            out.push('$');
            rest = &rest[1..];
            continue;
        };
        let Some((name, behind)) = inner.split_once('}') else {
            return Err(Error::new(ErrorKind::CatalogInvalid, "a reference has no closing brace")
                .field("config", at)
                .remedy("write ${NAME} or $Secret{NAME}; $${ stands for a literal ${"));
        };
        out.push_str(&lookup(name.trim(), at, resolver)?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup(name: &str, at: &str, resolver: &SecretResolver) -> Result<String> {
    resolver(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::SecretNotFound, format!("{at} refers to {name}, which is not set"))
            .field("secret", name)
            .remedy(format!("set the environment variable {name}"))
    })
}

/// Whether a text is nothing but references: it shows no secret.
fn is_reference(text: &str) -> bool {
    FORMS.iter().any(|form| text.starts_with(form)) && text.ends_with('}') && text.matches('}').count() == 1
}

/// What stands for a secret that is not shown.
pub(super) const HIDDEN: &str = "***";

/// Settings whose values are never shown.
fn is_secret(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    ["password", "pass", "secret", "token", "privatekey", "secretaccesskey", "accesskeyid", "connectionstring", "key"]
        .iter()
        .any(|name| key == *name || (name.len() > 4 && key.ends_with(name)))
}

/// `value` with its secrets hidden; references stay, since they say no more than a name.
pub(super) fn hidden(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), hidden_at(key, value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(hidden).collect()),
        Value::String(text) if text.contains("://") => Value::String(crate::transport::registry::redact(text)),
        other => other.clone(),
    }
}

fn hidden_at(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if is_secret(key) && !is_reference(text) => Value::String(HIDDEN.to_owned()),
        Value::Number(_) if is_secret(key) => Value::String(HIDDEN.to_owned()),
        other => hidden(other),
    }
}

/// Puts back into `new` the secrets that were hidden when `old` was shown.
pub(super) fn keep_hidden(new: &mut Value, old: &Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, value) in new {
                if let Some(old) = old.get(key) {
                    let unchanged = *value == hidden_at(key, old);
                    if unchanged { *value = old.clone() } else { keep_hidden(value, old) }
                }
            }
        }
        (Value::Array(new), Value::Array(old)) => new.iter_mut().zip(old).for_each(|(new, old)| keep_hidden(new, old)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn resolver() -> SecretResolver {
        Arc::new(|name| match name {
            "USER" => Some("me".to_owned()),
            "PASS" => Some("p$w{}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("amqp://${USER}:$Secret{PASS}@h", "amqp://me:p$w{}@h"),
            ("no $ reference $USER", "no $ reference $USER"),
            ("$${USER}", "${USER}"),
            ("$", "$"),
        ] {
            assert_eq!(resolve_text(text, "at", &resolver()).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in ["NOPE", "EMPTY"] {
            let error = resolve_text(&format!("$Secret{{{name}}}"), "orders.prd.config.url", &resolver()).unwrap_err();
            assert_eq!((error.code(), error.field_value()), ("SECRET_NOT_FOUND", Some(name)));
            assert!(error.to_string().contains("orders.prd.config.url"));
        }
        assert_eq!(resolve_text("${USER", "at", &resolver()).unwrap_err().code(), "CATALOG_INVALID");
    }

    #[test]
    fn literal_secrets_are_hidden_and_survive_an_update() {
        let old = json!({"url": "amqp://u:pw@h", "password": "pw", "user": "u", "token": "$Secret{T}", "sasl": {"password": 5}});
        let mut shown = hidden(&old);
        assert_eq!(
            shown,
            json!({"url": "amqp://u:***@h", "password": "***", "user": "u", "token": "$Secret{T}", "sasl": {"password": "***"}})
        );
        shown["user"] = json!("other");
        keep_hidden(&mut shown, &old);
        assert_eq!(
            shown,
            json!({"url": "amqp://u:pw@h", "password": "pw", "user": "other", "token": "$Secret{T}", "sasl": {"password": 5}})
        );
    }

    proptest! {
            #[test]
            fn any_text_is_resolved_or_refused(text in "[$\\{\\}A-Z a]{0,20}") {
                match resolve_text(&text, "at", &resolver()) {
    Ok(resolved) => {
                        let unchanged = resolved == text;
                        let refers = text.contains("USER") || text.contains("PASS") || text.contains("$$");
                        prop_assert!(refers || unchanged);
                    }
                    Err(error) => prop_assert!(["SECRET_NOT_FOUND", "CATALOG_INVALID"].contains(&error.code())),
                }
            }
        }
}

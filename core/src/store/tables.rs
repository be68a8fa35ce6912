//! The names of the tables.

use super::Dialect;
use crate::{Error, ErrorKind, Result};

/// Longest name: PostgreSQL keeps 63 bytes, and the other tables' names are this one with a suffix.
const MAX_NAME: usize = 48;

/// The tables of one outbox, named after the first of them.
///
/// The name may have a schema (a database in MySQL) in front: `app.tidings_outbox`. It is quoted wherever it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    schema: Option<String>,
    base: String,
}

impl Default for Tables {
    fn default() -> Self {
        Self { schema: None, base: "tidings_outbox".to_owned() }
    }
}

impl Tables {
    /// Tables whose names begin with `name`: `tidings_outbox`, `app.events`.
    ///
    /// `INVALID_NAME` where a part is empty, longer than 48 bytes or has a NUL in it.
    pub fn new(name: &str) -> Result<Self> {
        let (schema, base) = match name.split_once('.') {
            Some((schema, base)) => (Some(schema), base),
            None => (None, name),
        };
        for part in schema.into_iter().chain([base]) {
            if part.is_empty() || part.len() > MAX_NAME || part.contains(['\0', '.']) {
                return Err(Error::new(ErrorKind::InvalidName, "the name cannot be that of a table")
                    .field("table", name)
                    .remedy("use table or schema.table, each of 1 to 48 bytes"));
            }
        }
        Ok(Self { schema: schema.map(str::to_owned), base: base.to_owned() })
    }

    /// The name as it was given.
    pub fn name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.base),
            None => self.base.clone(),
        }
    }

    /// The channel that PostgreSQL notifies.
    pub(crate) fn channel(&self) -> String {
        let name = self.name();
        // Longer names of channels are refused.
        if name.len() < 60 { name } else { format!("tidings-{:016x}", super::insert::hash(name.as_bytes())) }
    }

    pub(crate) fn outbox(&self, dialect: Dialect) -> String {
        self.quoted(dialect, &self.base)
    }

    pub(crate) fn part(&self, dialect: Dialect) -> String {
        self.quoted(dialect, &format!("{}_part", self.base))
    }

    pub(crate) fn relay(&self, dialect: Dialect) -> String {
        self.quoted(dialect, &format!("{}_relay", self.base))
    }

    pub(crate) fn lock(&self, dialect: Dialect) -> String {
        self.quoted(dialect, &format!("{}_lock", self.base))
    }

    pub(crate) fn versions(&self, dialect: Dialect) -> String {
        self.quoted(dialect, "tidings_schema")
    }

    /// What `tidings_schema` calls these tables.
    pub(crate) fn component(&self) -> String {
        if self.base == Self::default().base { "outbox".to_owned() } else { format!("outbox:{}", self.base) }
    }

    /// The name that stands for `word` of a schema file, if it is one of ours.
    pub(crate) fn rename(&self, dialect: Dialect, word: &str) -> Option<String> {
        let rest = word.strip_prefix("tidings_outbox")?;
        let name = format!("{}{rest}", self.base);
        // Indexes live in the schema of their table, and take no other.
        Some(if rest.ends_with("_index") { dialect.quote(&name) } else { self.quoted(dialect, &name) })
    }

    fn quoted(&self, dialect: Dialect, name: &str) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", dialect.quote(schema), dialect.quote(name)),
            None => dialect.quote(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_is_in_them() {
        let tables = Tables::new("my app.out\"box`; drop").unwrap();
        assert_eq!(tables.outbox(Dialect::Postgres), r#""my app"."out""box`; drop""#);
        assert_eq!(tables.relay(Dialect::MySql), "`my app`.`out\"box``; drop_relay`");
        for bad in ["", ".a", "a.", "a.b.c", "a\0", &"x".repeat(49)] {
            assert_eq!(Tables::new(bad).unwrap_err().code(), "INVALID_NAME", "{bad}");
        }
    }
}

//! Statements with their parameters, as any driver can run them.

use std::fmt::Write as _;

use super::{Dialect, ParamStyle};

/// A parameter. Drivers of every language have a type for each.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// NULL.
    Null,
    /// A whole number (`bigint`).
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An array of whole numbers. Only in what Tidings runs itself on PostgreSQL.
    Ints(Vec<i64>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// SQL and its parameters, in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Statement {
    /// The text, with a mark for each parameter.
    pub sql: String,
    /// The parameters. In [`ParamStyle::Named`] the first is `p1`.
    pub params: Vec<Value>,
}

/// A statement in the making.
#[derive(Debug, Clone)]
pub(crate) struct Sql {
    pub(crate) dialect: Dialect,
    style: ParamStyle,
    text: String,
    params: Vec<Value>,
}

impl Sql {
    /// A statement as Tidings' own drivers run it.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self::styled(dialect, dialect.default_style())
    }

    pub(crate) fn styled(dialect: Dialect, style: ParamStyle) -> Self {
        Self { dialect, style, text: String::new(), params: Vec::new() }
    }

    /// Appends SQL. Never a value.
    pub(crate) fn sql(mut self, text: &str) -> Self {
        self.push(text);
        self
    }

    pub(crate) fn push(&mut self, text: &str) {
        match self.style {
            ParamStyle::Format => self.text.push_str(&text.replace('%', "%%")),
            ParamStyle::Named => self.text.push_str(&text.replace(':', "\\:")),
            ParamStyle::Dollar | ParamStyle::Question => self.text.push_str(text),
        }
    }

    /// Appends a parameter.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.push_value(value);
        self
    }

    pub(crate) fn push_value(&mut self, value: impl Into<Value>) {
        self.params.push(value.into());
        let number = self.params.len();
        // Writing into a string cannot fail.
        let _infallible = match self.style {
            ParamStyle::Dollar => write!(self.text, "${number}"),
            ParamStyle::Question => write!(self.text, "?"),
            ParamStyle::Format => write!(self.text, "%s"),
            ParamStyle::Named => write!(self.text, ":p{number}"),
        };
    }

    /// Appends a condition on whole numbers: one of these.
    pub(crate) fn any_of(self, numbers: impl IntoIterator<Item = i64>) -> Self {
        if self.dialect == Dialect::Postgres {
            return self.sql(" = ANY(").bind(Value::Ints(numbers.into_iter().collect())).sql(")");
        }
        let list: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
        // Nothing is in an empty list, but SQL does not allow one.
        let list = if list.is_empty() { "NULL".to_owned() } else { list.join(",") };
        self.sql(&format!(" IN ({list})"))
    }

    /// Appends a condition on text: one of these.
    pub(crate) fn any_text(mut self, texts: impl IntoIterator<Item = Value>) -> Self {
        self.push(" IN (NULL");
        for text in texts {
            self.push(", ");
            self.push_value(text);
        }
        self.sql(")")
    }

    pub(crate) fn done(self) -> Statement {
        Statement { sql: self.text, params: self.params }
    }
}

impl From<Value> for Option<i64> {
    fn from(value: Value) -> Self {
        match value {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }
}

impl Value {
    /// The text that this value is on the wire of its database.
    pub(crate) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(bytes) => {
                Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
            }
            _ => None,
        }
    }

    pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.into_bytes()),
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

//! What handlers return, and what it means.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::event::DomainEvent;
use crate::settlement::{Failure, Outcome, Raised, asked};
use crate::{BoxError, Error};

/// Return it as an error to handle the event again later. At most `max_retries` times; then it is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    after: Option<Duration>,
    message: Option<Cow<'static, str>>,
}

impl Retry {
    /// Again after `delay`.
    pub fn after(delay: Duration) -> Self {
        Self { after: Some(delay), message: None }
    }

    /// Again when the subscription's policy says, else after 10 s.
    pub fn by_policy() -> Self {
        Self { after: None, message: None }
    }

    /// Says why; a dead letter keeps it.
    pub fn because(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }
}

/// Return it as an error to give up on the event at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    reason: Cow<'static, str>,
    message: Option<Cow<'static, str>>,
}

impl DeadLetter {
    /// Gives up for `reason`: a short, stable text that replays can filter by.
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), message: None }
    }

    /// Adds details.
    pub fn details(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }
}

/// Return it as an error to drop the event: acknowledged, and counted apart from the handled ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discard;

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("to be retried"))
    }
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("to be discarded")
    }
}

impl std::error::Error for Retry {}
impl std::error::Error for DeadLetter {}
impl std::error::Error for Discard {}

pub(super) type HandlerFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;
pub(super) type Handler = Arc<dyn Fn(DomainEvent) -> HandlerFuture + Send + Sync>;

/// Makes a handler of a function: whatever it returns becomes an [`Outcome`].
pub(super) fn erase<F, Fut, E>(handler: F) -> Handler
where
    F: Fn(DomainEvent) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move |event| {
        let future = handler(event);
        Box::pin(async move {
            match future.await {
                Ok(()) => Outcome::Ok,
                Err(error) => of_error(error),
            }
        })
    })
}

/// The outcome of a handler that returned this error.
pub(super) fn of_error<E: Into<BoxError>>(error: E) -> Outcome {
    outcome(&*error.into(), std::any::type_name::<E>())
}

/// What a handler's error means: [`Retry`], [`DeadLetter`] and [`Discard`] anywhere in its chain say so themselves.
pub(super) fn outcome(error: &(dyn std::error::Error + Send + Sync + 'static), type_name: &str) -> Outcome {
    let first: &(dyn std::error::Error + 'static) = error;
    let errors = std::iter::successors(Some(first), |e| e.source());
    asked(errors.map(raised))
        .unwrap_or_else(|| Outcome::Fail(Failure::new(error_types(error, type_name), chain(error))))
}

fn raised(error: &(dyn std::error::Error + 'static)) -> Raised {
    if let Some(retry) = error.downcast_ref::<Retry>() {
        Raised::Retry { after: retry.after, message: retry.message.as_deref().map(str::to_owned) }
    } else if let Some(dead) = error.downcast_ref::<DeadLetter>() {
        let message = dead.message.as_deref().map(str::to_owned);
        Raised::DeadLetter { reason: dead.reason.clone().into_owned(), message }
    } else if error.is::<Discard>() {
        Raised::Discard
    } else {
        Raised::Other
    }
}

/// The error's types, most specific first: the handler's own error type where it is a concrete one, and for each error
/// of the source chain the name that its derived `Debug` starts with (a boxed error has no other name at run time).
fn error_types(error: &(dyn std::error::Error + 'static), type_name: &str) -> Vec<String> {
    let mut types = Vec::new();
    let mut add = |name: &str| {
        if !name.is_empty() && !types.iter().any(|t| t == name) {
            types.push(name.to_owned());
        }
    };
    if !type_name.contains("dyn ") && !type_name.starts_with('&') {
        add(type_name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or_default());
    }
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(ours) = e.downcast_ref::<Error>() {
            add(ours.code());
        } else {
            let debug = format!("{e:?}");
            add(debug.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default());
        }
        cause = e.source();
    }
    types
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let next = e.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_errors_speak_for_themselves() {
        let retry = || Box::new(Retry::after(Duration::from_secs(5))) as BoxError;
        assert_eq!(outcome(&*retry(), "x"), Outcome::Retry { after: Some(Duration::from_secs(5)), message: None });
        assert_eq!(outcome(&Discard, "x"), Outcome::Discard);
        let dead = outcome(&DeadLetter::because("no-tail-number").details("UA 1"), "x");
        assert_eq!(dead, Outcome::DeadLetter { reason: "no-tail-number".into(), message: Some("UA 1".into()) });
    }

    #[test]
    fn error_types_follow_the_chain() {
        #[derive(Debug)]
        struct Retryable;
        impl fmt::Display for Retryable {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("later")
            }
        }
        impl std::error::Error for Retryable {}

        let io = std::io::Error::new(std::io::ErrorKind::TimedOut, Retryable);
        let Outcome::Fail(failure) = outcome(&io, "std::io::error::Error") else { panic!() };
        assert_eq!(failure.error_types, ["Error", "Custom"]);
    }
}

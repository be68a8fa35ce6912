//! Sessions: on whose behalf something is published. The token is verified here and goes no further.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::catalog::{Catalog, not_declared};
use super::{jwt, secrets};
use crate::event::{Headers, name};
use crate::{BoxError, Error, ErrorKind, Result};

/// A caller's session: its tag, and a token that proves it. `Debug` shows the tag only.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// The kind of session.
    pub tag: String,
    /// For example a signed JWT. Never sent, logged or stored.
    pub token: String,
}

impl Session {
    /// A session of this tag.
    pub fn new(tag: impl Into<String>, token: impl Into<String>) -> Self {
        Self { tag: tag.into(), token: token.into() }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// A session as events carry it: its tag, and whose it is if that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifiedSession {
    /// The kind of session.
    pub tag: String,
    /// Subject of the token.
    pub subject: Option<String>,
    /// Whether anybody looked at the token.
    pub verified: bool,
}

impl VerifiedSession {
    /// Writes what may be known into an event's headers.
    pub(super) fn write(&self, headers: &mut Headers) {
        headers.set(name::SESSION_TAG, self.tag.as_str());
        headers.set(name::SESSION_VERIFIED, self.verified);
        if let Some(subject) = &self.subject {
            headers.set(name::SESSION_SUBJECT, subject.as_str());
        }
    }
}

/// Verifies tokens in the program's own way. Takes the place of the keys that the catalog declares.
#[async_trait]
pub trait SessionVerifier: Send + Sync + 'static {
    /// Accepts a session and says whose it is, or rejects it. What the error says is not shown to anybody.
    async fn verify(&self, session: &Session) -> Result<Option<String>, BoxError>;
}

/// A session that the catalog declares: `{ tag, verify: { alg, key, issuer?, audience?, leeway? } }`.
#[derive(Clone, Deserialize)]
pub(super) struct SessionDeclaration {
    pub(super) tag: String,
    verify: Option<Verification>,
}

/// How the tokens of a session are verified.
#[derive(Clone, Deserialize)]
struct Verification {
    alg: String,
    /// A shared secret, or a public key in PEM. Usually a reference.
    key: String,
    #[serde(alias = "iss")]
    issuer: Option<String>,
    #[serde(alias = "aud")]
    audience: Option<String>,
    /// Seconds by which clocks may differ.
    #[serde(default)]
    leeway: u64,
}

impl fmt::Debug for SessionDeclaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionDeclaration").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// The error of a rejected session. It says no more than its tag and why in general.
fn rejected(tag: &str, why: &str) -> Error {
    Error::new(ErrorKind::SessionInvalid, format!("the session was rejected: {why}"))
        .field("session", tag)
        .remedy("start a new session; nothing was sent")
}

impl Catalog {
    /// Verifies a session of a product: by the verifier, else by the key that the catalog declares for its tag.
    ///
    /// A tag without either is carried as unverified, unless the catalog declares sessions: then it is `SESSION_INVALID`.
    pub(super) async fn verify(
        &self,
        product: &str,
        session: &Session,
        verifier: Option<&Arc<dyn SessionVerifier>>,
    ) -> Result<VerifiedSession> {
        let tag = session.tag.clone();
        if tag.is_empty() {
            return Err(rejected(&tag, "it has no tag"));
        }
        if let Some(verifier) = verifier {
            // The hook's own words may repeat the token.
            let subject =
                verifier.verify(session).await.map_err(|_| rejected(&tag, "the verifier did not accept it"))?;
            return Ok(VerifiedSession { tag, subject, verified: true });
        }
        let declared = self.sessions(product);
        if declared.is_empty() {
            return Ok(VerifiedSession { tag, subject: None, verified: false });
        }
        let Some(declaration) = declared.iter().find(|one| one.tag == tag) else {
            let tags = declared.iter().map(|one| one.tag.as_str());
            return Err(not_declared(ErrorKind::SessionInvalid, "session", &tag, tags));
        };
        let Some(verification) = &declaration.verify else {
            return Ok(VerifiedSession { tag, subject: None, verified: false });
        };
        let at = format!("sessions.{tag}.verify");
        let key = secrets::resolve_text(&verification.key, &format!("{at}.key"), self.resolver())?;
        let key = jwt::Key::read(&verification.alg, &key).map_err(|error| error.about(&at))?;
        let expected = jwt::Expected {
            issuer: verification.issuer.as_deref(),
            audience: verification.audience.as_deref(),
            leeway: verification.leeway,
        };
        let now = crate::Timestamp::now().as_micros() / 1_000_000;
        let claims = jwt::verify(&session.token, &key, &expected, now).map_err(|why| rejected(&tag, why))?;
        Ok(VerifiedSession { tag, subject: claims.subject, verified: true })
    }
}

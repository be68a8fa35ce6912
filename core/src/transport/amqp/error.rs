//! What lapin and the server say, in our words.

use std::fmt;
use std::io;

use lapin::ErrorKind as Lapin;
use lapin::protocol::{AMQPError, AMQPErrorKind};

use super::url::Config;
use crate::{Error, ErrorKind};

/// Reply code 320: an operator or a shutdown ended the connection.
const CONNECTION_FORCED: u16 = 320;
/// Reply code 541: the server's own fault.
const INTERNAL_ERROR: u16 = 541;
/// Reply code 403: no permission, or no such user.
const ACCESS_REFUSED: u16 = 403;
/// Reply code 404.
const NOT_FOUND: u16 = 404;
/// Reply code 405: somebody else's exclusive queue.
const RESOURCE_LOCKED: u16 = 405;
/// Reply code 406: exists with other arguments, among others.
const PRECONDITION_FAILED: u16 = 406;
/// Reply code 530: no such virtual host, or not for this user.
const NOT_ALLOWED: u16 = 530;

/// Marks an I/O error that came out of the TLS handshake.
#[derive(Debug)]
pub(super) struct TlsError(pub(super) io::Error);

impl TlsError {
    /// The certificate is good, and not for the host that was asked for.
    fn is_of_another_host(&self) -> bool {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let tls = self.0.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(rustls::Error::InvalidCertificate(why)) = tls else { return false };
        matches!(why, NotValidForName | NotValidForNameContext { .. })
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TlsError {}

/// What the server said, if the error is its answer.
pub(super) fn answer(error: &lapin::Error) -> Option<&AMQPError> {
    match error.kind() {
        Lapin::ProtocolError(answer) => Some(answer),
        _ => None,
    }
}

/// Whether a queue or exchange does not exist.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    answer(error).is_some_and(|answer| answer.get_id() == NOT_FOUND)
}

/// Whether this is why the server ended one channel, and no more than that.
pub(super) fn ended_a_channel(error: &lapin::Error) -> bool {
    answer(error).is_some_and(|answer| matches!(answer.kind(), AMQPErrorKind::Soft(_)))
}

/// Whether the server ended the channel or connection because of something that was published.
pub(super) fn blames_a_publish(error: &lapin::Error) -> bool {
    answer(error).is_some_and(|answer| answer.get_id() != CONNECTION_FORCED && answer.get_id() != INTERNAL_ERROR)
}

/// The exchange that a refused publish went to, where the server's text names it: whatever goes there is refused.
pub(super) fn refused_exchange(error: &lapin::Error) -> Option<String> {
    let text = answer(error)?.get_message().to_string();
    let (_, rest) = text.split_once("access to exchange '").or_else(|| text.split_once("internal exchange '"))?;
    rest.split_once('\'').map(|(exchange, _)| exchange.to_owned())
}

/// The server's answer to a publish, which is no conflict of declarations whatever its code is.
pub(super) fn of_publish(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AccessRefused | ErrorKind::Rejected => error,
        _ => Error::new(ErrorKind::Rejected, error.message().to_owned())
            .remedy("the broker closes the channel for this event: it will not take it as it is")
            .source(error),
    }
}

fn tls(error: &lapin::Error) -> Option<&TlsError> {
    match error.kind() {
        Lapin::IOError(io) => io.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Maps an error of the connection that `config` asks for.
pub(super) fn connecting(error: lapin::Error, config: &Config) -> Error {
    let target = config.target();
    if let Some(answer) = answer(&error) {
        let text = answer.get_message().to_string();
        return match answer.get_id() {
            ACCESS_REFUSED => Error::new(ErrorKind::AccessRefused, format!("{target} refused the login: {text}"))
                .field("user", &config.user)
                .remedy("check user and password of the broker URL"),
            NOT_ALLOWED => Error::new(ErrorKind::AccessRefused, format!("{target} refused the virtual host: {text}"))
                .field("vhost", &config.vhost)
                .remedy(
                    "create it (rabbitmqctl add_vhost) and give the user permissions, or correct the broker URL's path",
                ),
            _ => Error::new(ErrorKind::ConnectionFailed, format!("{target} ended the connection: {text}")),
        }
        .source(error);
    }
    if let Some(tls) = tls(&error) {
        let failed = Error::new(ErrorKind::TlsFailed, format!("no TLS with {target}: {tls}"));
        let failed = if tls.is_of_another_host() {
            failed
                .field("host", &config.host)
                .remedy("write the host into the broker URL as the server's certificate has it")
        } else {
            let files = config.tls.as_ref().and_then(|tls| tls.cacertfile.as_ref());
            failed
                .field("cacertfile", files.map_or("".into(), |path| path.to_string_lossy()))
                .remedy("name the authority that signed the server's certificate with cacertfile")
        };
        return failed.source(error);
    }
    let refused = matches!(error.kind(), Lapin::IOError(io) if io.kind() == io::ErrorKind::ConnectionRefused);
    let remedy = if refused {
        "start the broker, or correct host and port of the broker URL"
    } else {
        "check host, port and network"
    };
    Error::new(ErrorKind::ConnectionFailed, format!("cannot connect to {target}: {error}"))
        .field("broker", &target)
        .remedy(remedy)
        .source(error)
}

/// Maps the answer to a request; `what` names what was asked for, such as `queue billing`.
pub(super) fn answered(error: lapin::Error, what: &str) -> Error {
    let Some(answer) = answer(&error) else {
        return Error::new(ErrorKind::ConnectionFailed, format!("the connection ended during {what}: {error}"))
            .source(error);
    };
    let text = answer.get_message().to_string();
    match answer.get_id() {
        ACCESS_REFUSED => Error::new(ErrorKind::AccessRefused, format!("{what}: {text}"))
            .field("permission", what)
            .remedy("give the user configure, write and read permissions (rabbitmqctl set_permissions)"),
        PRECONDITION_FAILED => match argument(&text) {
            Some(argument) => Error::new(
                ErrorKind::SubscriptionConflict,
                format!("{what} exists with other settings: {text}"),
            )
            .field("argument", argument)
            .remedy("delete the old one once it is drained, choose another name, or ask for the settings that it has"),
            None => Error::new(ErrorKind::Rejected, format!("{what}: {text}")),
        },
        RESOURCE_LOCKED => {
            Error::new(ErrorKind::SubscriptionConflict, format!("{what} belongs to another connection: {text}"))
                .field("argument", "exclusive")
                .remedy("choose another name, or stop the other consumer")
        }
        NOT_FOUND => Error::new(ErrorKind::SubscriptionNotFound, format!("{what}: {text}")).remedy("subscribe first"),
        id => Error::new(ErrorKind::ConnectionFailed, format!("the broker ended {what} with {id}: {text}")),
    }
    .source(error)
}

/// The argument that the server's text names: `inequivalent arg 'x-max-length' for queue …`.
fn argument(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("arg '").or_else(|| text.split_once("argument '"))?;
    rest.split_once('\'').map(|(argument, _)| argument)
}

/// The transport was closed by its owner.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker handle is closed").remedy("open a new one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_name_the_argument() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none";
        assert_eq!(argument(text), Some("x-max-length"));
        assert_eq!(argument("PRECONDITION_FAILED - unknown delivery tag 5"), None);
    }
}

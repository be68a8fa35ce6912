//! The broker's URL: where, as whom, and with which parameters.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use url::Url;

use crate::transport::QueueType;
use crate::transport::registry::redact;
use crate::{Error, ErrorKind, Result};

/// Parameters that a URL may have, in the order in which an error lists them.
const PARAMETERS: &str = "cacertfile certfile keyfile verify heartbeat frame_max connection_timeout queue_type";
/// Heartbeat where the URL names none, in seconds.
const HEARTBEAT: u16 = 10;
/// Largest frame where the URL names none: RabbitMQ's own default. Said at the login, because buffers that only learn of the
/// server's later are written over from end to end, which keeps 8 MiB of each connection resident.
const FRAME_MAX: u32 = 131_072;
/// Time for TCP, TLS and the AMQP handshake where the URL names none.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A broker URL, understood.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    password: String,
    pub(super) vhost: String,
    pub(super) tls: Option<Tls>,
    pub(super) heartbeat: u16,
    frame_max: u32,
    pub(super) connection_timeout: Duration,
    /// Kind of the queues that no subscription decides about, and of all subscriptions on servers without quorum queues.
    pub(super) queue_type: QueueType,
}

/// Files of a TLS connection. The server's certificate is always verified.
#[derive(Debug, Clone, Default)]
pub(super) struct Tls {
    pub(super) cacertfile: Option<PathBuf>,
    pub(super) certfile: Option<PathBuf>,
    pub(super) keyfile: Option<PathBuf>,
}

impl fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("target", &self.target())
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("heartbeat", &self.heartbeat)
            .field("queue_type", &self.queue_type)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads `amqp[s]://user:password@host:port/vhost?parameters`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidUrl, message).field("url", redact(text));
        let url = Url::parse(text).map_err(|e| {
            invalid(format!("the broker URL cannot be understood: {e}"))
                .remedy("write amqp://user:password@host:5672/vhost, special characters percent-encoded")
        })?;
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            other => return Err(invalid(format!("{other}: is not a scheme of RabbitMQ")).remedy("use amqp: or amqps:")),
        };
        if url.cannot_be_a_base() {
            return Err(invalid("the broker URL has no // before the host".to_owned()).remedy("write amqp://host"));
        }
        let decoded = |part: &str, what: &str| {
            percent_decode(part).ok_or_else(|| invalid(format!("the broker URL's {what} is not percent-encoded UTF-8")))
        };
        let host = match url.host_str().unwrap_or_default() {
            "" => "localhost".to_owned(),
            host => decoded(host.trim_start_matches('[').trim_end_matches(']'), "host")?,
        };
        let (user, password) = match (url.username(), url.password()) {
            ("", None) => ("guest".to_owned(), "guest".to_owned()),
            (user, password) => (decoded(user, "user")?, decoded(password.unwrap_or_default(), "password")?),
        };
        let vhost = match url.path().strip_prefix('/').unwrap_or_default() {
            "" => "/".to_owned(),
            path if path.contains('/') => {
                return Err(
                    invalid("the virtual host in the broker URL has a bare slash".to_owned()).remedy("write it as %2F")
                );
            }
            path => decoded(path, "virtual host")?,
        };
        if vhost.len() > 255 {
            return Err(invalid("the virtual host in the broker URL has more than 255 bytes".to_owned()));
        }
        let mut config = Self {
            host,
            port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
            user,
            password,
            vhost,
            tls: tls.then(Tls::default),
            heartbeat: HEARTBEAT,
            frame_max: FRAME_MAX,
            connection_timeout: CONNECTION_TIMEOUT,
            queue_type: QueueType::Quorum,
        };
        for (name, value) in url.query_pairs() {
            config.set(&name, &value)?;
        }
        if let Some(tls) = &config.tls
            && tls.certfile.is_some() != tls.keyfile.is_some()
        {
            return Err(Error::new(ErrorKind::InvalidUrl, "a client certificate needs both certfile and keyfile")
                .field(if tls.certfile.is_some() { "keyfile" } else { "certfile" }, "")
                .remedy("add the other one"));
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let invalid = |field: &'static str, remedy: &str| {
            Error::new(ErrorKind::InvalidUrl, format!("the broker URL's {field} makes no sense"))
                .field(field, value)
                .remedy(remedy)
        };
        match name {
            "heartbeat" => {
                self.heartbeat = value.parse().map_err(|_| invalid("heartbeat", "use seconds, 0 to 65535"))?;
            }
            "frame_max" => {
                self.frame_max = value
                    .parse()
                    .ok()
                    .filter(|bytes| *bytes >= 4096)
                    .ok_or_else(|| invalid("frame_max", "use bytes, at least 4096"))?;
            }
            "connection_timeout" => {
                let millis: u64 = value
                    .parse()
                    .ok()
                    .filter(|millis| *millis > 0)
                    .ok_or_else(|| invalid("connection_timeout", "use milliseconds, at least 1"))?;
                self.connection_timeout = Duration::from_millis(millis);
            }
            "queue_type" => {
                self.queue_type = match value {
                    "quorum" => QueueType::Quorum,
                    "classic" => QueueType::Classic,
                    _ => return Err(invalid("queue_type", "use quorum or classic")),
                }
            }
            "verify" => match value {
                "verify_peer" => self.tls_of("verify", value)?,
                _ => {
                    return Err(invalid(
                        "verify",
                        "use verify_peer, or leave it out: TLS verification has no off switch, name your authority with cacertfile",
                    ));
                }
            },
            "cacertfile" => {
                self.tls_of("cacertfile", value)?;
                self.tls.get_or_insert_default().cacertfile = Some(value.into());
            }
            "certfile" => {
                self.tls_of("certfile", value)?;
                self.tls.get_or_insert_default().certfile = Some(value.into());
            }
            "keyfile" => {
                self.tls_of("keyfile", value)?;
                self.tls.get_or_insert_default().keyfile = Some(value.into());
            }
            _ => {
                return Err(Error::new(ErrorKind::InvalidUrl, format!("amqp: has no parameter {name:?}"))
                    .field("parameter", name)
                    .remedy(format!("it has {PARAMETERS}")));
            }
        }
        Ok(())
    }

    fn tls_of(&self, field: &'static str, value: &str) -> Result<()> {
        if self.tls.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidUrl, format!("{field} belongs to amqps:, this URL is not encrypted"))
            .field(field, value)
            .remedy("use amqps:, or leave it out"))
    }

    /// Host, port and virtual host, for messages.
    pub(super) fn target(&self) -> String {
        format!("{}:{}{}{}", self.host, self.port, if self.vhost.starts_with('/') { "" } else { "/" }, self.vhost)
    }

    /// The same for lapin. It reads the password, and so prints it: never log the result.
    pub(super) fn to_uri(&self) -> AMQPUri {
        AMQPUri {
            scheme: if self.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: self.password.clone() },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                frame_max: Some(self.frame_max),
                heartbeat: Some(self.heartbeat),
                ..AMQPQueryString::default()
            },
        }
    }
}

/// Decodes `%XX`; `None` for what is no UTF-8 or no hexadecimal.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded() {
        let config =
            Config::parse("amqp://me:p%40ss%2Fword@[::1]:5673/a%2Fb?heartbeat=3&connection_timeout=500").unwrap();
        assert_eq!((config.host.as_str(), config.port, config.vhost.as_str()), ("::1", 5673, "a/b"));
        assert_eq!((config.user.as_str(), config.password.as_str()), ("me", "p@ss/word"));
        assert_eq!((config.heartbeat, config.connection_timeout), (3, Duration::from_millis(500)));
        assert!(!format!("{config:?}").contains("word"));
    }

    #[test]
    fn empty_path_and_slash_are_the_default_virtual_host() {
        for url in ["amqp://h", "amqp://h/", "amqp://h/%2F", "amqp://h/%2f"] {
            let config = Config::parse(url).unwrap();
            assert_eq!((config.vhost.as_str(), config.user.as_str(), config.heartbeat), ("/", "guest", 10), "{url}");
        }
        assert_eq!(Config::parse("amqps://h").unwrap().port, 5671);
    }

    #[test]
    fn refusals_name_the_parameter_and_hide_the_password() {
        for (url, field) in [
            ("amqp://u:secret@h?frobnicate=1", "parameter"),
            ("amqps://u:secret@h?verify=verify_none", "verify"),
            ("amqp://u:secret@h?cacertfile=ca.pem", "cacertfile"),
            ("amqps://u:secret@h?certfile=c.pem", "keyfile"),
            ("amqp://u:secret@h?heartbeat=x", "heartbeat"),
            ("amqp://u:secret@h?frame_max=4095", "frame_max"),
            ("amqp://u:secret@h?connection_timeout=0", "connection_timeout"),
            ("amqp://u:secret@h?queue_type=stream", "queue_type"),
            ("amqp://u:secret@h/a/b", "url"),
            ("amqp://u:secret@h:notaport", "url"),
        ] {
            let error = Config::parse(url).unwrap_err();
            assert_eq!((error.code(), error.field_name()), ("INVALID_URL", Some(field)), "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        let error = Config::parse("amqps://h?verify=verify_none").unwrap_err();
        assert!(error.to_string().contains("no off switch"));
    }
}
